//! A whole server without a model: the real router, gate, text and engine over the simulated
//! device, with clocks and seeds that tests own.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use weir::clock::{Clock, ManualClock, SystemClock};
use weir::config::{ListenerLimits, QueueLimits, RequestLimits, Secret, Tenancy};
use weir::device::DeviceLimits;
use weir::device::sim::{Pace, SimConfig, SimCost, SimDevice};
use weir::engine::{Engine, EngineConfig, EngineHandle};
use weir::gate::ledger::Ledger;
use weir::gate::{Gate, KeyFile, Rosters};
use weir::http::{
    AppState, Control, CpuPool, ModelCard, SamplingDefaults, Seeds, Shutdown, Surface, listener,
};
use weir::ids::TokenId;
use weir::metrics::Metrics;
use weir::text::{Text, TextLimits, TokenizerSource};

pub const MODEL: &str = "sim";
pub const CONTEXT_TOKENS: u32 = 512;
pub const VOCAB_SIZE: u32 = 300;
/// A token without text.
pub const EOS: TokenId = TokenId(299);

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
    {% if add_generation_prompt %}assistant: {% endif %}";

/// What a test changes.
pub struct Options {
    pub keys: Vec<String>,
    pub key_file: Option<KeyFile>,
    pub tenancy: Tenancy,
    /// None: budgets live in memory.
    pub ledger: Option<Arc<Ledger>>,
    pub sim: SimConfig,
    pub requests: RequestLimits,
    pub queue: QueueLimits,
    pub keep_alive_interval: Duration,
    /// Steps take time of the operating system's clock.
    pub wall_pace: bool,
    pub template: Option<String>,
}

/// A server whose engine runs on its own thread.
pub struct Rig {
    pub state: Arc<AppState>,
    pub router: Router,
}

/// A server whose engine turns when the test says so.
pub struct Stepped {
    pub rig: Rig,
    pub engine: Engine,
    pub clock: Arc<ManualClock>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Default for Options {
    fn default() -> Self {
        let mut sim = SimConfig::new(DeviceLimits {
            block_size_tokens: 16,
            blocks_total: 256,
            step_rows_max: 512,
            slots_total: 128,
            context_tokens_max: CONTEXT_TOKENS,
            vocab_size: VOCAB_SIZE,
            steps_in_flight_max: 1,
            computes_in_submit: false,
        });
        // Small letters, so that answers can be read.
        sim.sampled = 97..123;
        Self {
            keys: Vec::new(),
            key_file: None,
            tenancy: Tenancy::default(),
            ledger: None,
            sim,
            requests: RequestLimits::default(),
            queue: QueueLimits {
                requests_max: 1024,
                tokens_max: 1 << 20,
                stall_after: Duration::from_secs(10),
                drain_retry: Duration::from_secs(1),
            },
            keep_alive_interval: Duration::from_secs(15),
            wall_pace: false,
            template: Some(TEMPLATE.to_owned()),
        }
    }
}

impl Options {
    /// Each step takes this long.
    pub fn step(mut self, fixed: Duration) -> Self {
        let none = Duration::ZERO;
        self.sim.cost = SimCost {
            fixed,
            per_prefill_row: none,
            per_sequence: none,
            per_1024_context_tokens: none,
        };
        self.wall_pace = true;
        self
    }

    pub fn start(self) -> Rig {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let pace = if self.wall_pace {
            Pace::Wall(Arc::clone(&clock))
        } else {
            Pace::Virtual(Arc::new(ManualClock::default()))
        };
        let device = Box::new(SimDevice::new(self.sim.clone(), pace));
        let config = EngineConfig::new([7; 32]);
        let observer = Box::new(|_: &_| {});
        let (engine, _thread) =
            EngineHandle::start(config, device, Arc::clone(&clock), observer).unwrap();
        // Time stamps in answers stay the same from run to run.
        self.rig(engine, Arc::new(ManualClock::default()))
    }

    pub fn stepped(self) -> Stepped {
        let clock = Arc::new(ManualClock::default());
        let pace = Pace::Virtual(Arc::clone(&clock));
        let device = Box::new(SimDevice::new(self.sim.clone(), pace));
        let (engine, handle) = Engine::new(EngineConfig::new([7; 32]), device);
        let rig = self.rig(handle, Arc::clone(&clock) as Arc<dyn Clock>);
        Stepped { rig, engine, clock }
    }

    fn rig(self, engine: EngineHandle, clock: Arc<dyn Clock>) -> Rig {
        let source = TokenizerSource::Bytes { vocab_size: VOCAB_SIZE };
        let limits = TextLimits { template_fuel: 1_000_000, rendered_bytes_max: 8 << 20 };
        let api_keys: Vec<Secret> = self.keys.iter().map(|key| Secret::from(&**key)).collect();
        let rosters = Rosters::new(&self.tenancy, &api_keys, self.key_file.as_ref());
        let gate = Gate::new(rosters, self.queue);
        let gate = match self.ledger {
            Some(ledger) => gate.with_ledger(ledger),
            None => gate,
        };
        let state = Arc::new(AppState {
            gate: Arc::new(gate),
            text: Arc::new(Text::open(source, self.template, limits).unwrap()),
            engine,
            metrics: Arc::new(Metrics::new(MODEL, true).unwrap()),
            clock,
            limits: self.requests,
            model: ModelCard {
                names: vec![MODEL.to_owned(), "org/sim".to_owned()],
                max_model_len: CONTEXT_TOKENS,
                vocab_size: VOCAB_SIZE,
                created_unix_s: 1_700_000_000,
                eos: Arc::from([EOS]),
                defaults: SamplingDefaults::default(),
                fingerprint: "fp_sim".to_owned(),
            },
            cpu: CpuPool::new(2, 256),
            seeds: Seeds::new(1),
            keep_alive_interval: self.keep_alive_interval,
            connections: Arc::default(),
            shutdown: Shutdown::new(),
            control: Control::new().0,
            version: "0.0.0",
        });
        Rig {
            router: weir::http::router(
                Arc::clone(&state),
                Surface::Inference { with_metrics: true },
            ),
            state,
        }
    }
}

impl Rig {
    pub async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answered {
        let request = Request::get(path).body(Body::empty()).unwrap();
        Answered::read(self.send(request).await).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answered {
        self.post_text(path, body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: impl Into<Body>) -> Answered {
        Answered::read(self.send(json_request(path, body)).await).await
    }

    /// Serves on a free port of the loopback address.
    pub async fn listen(&self, limits: ListenerLimits) -> std::net::SocketAddr {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(listener::serve(
            socket,
            self.router.clone(),
            limits,
            self.state.shutdown.clone(),
            Arc::clone(&self.state.connections),
            Arc::clone(&self.state.metrics),
            Arc::new(SystemClock::new()),
        ));
        address
    }
}

impl Stepped {
    /// Turns the engine until it has nothing to do, at most `turns` times.
    pub fn turn(&mut self, turns: usize) {
        for _ in 0..turns {
            if self.engine.is_idle() {
                return;
            }
            self.engine.turn(self.clock.as_ref());
        }
    }
}

impl Answered {
    pub async fn read(response: http::Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(bytes.to_vec()).unwrap();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The events of a stream: the data of each, in order.
    pub fn events(&self) -> Vec<String> {
        assert!(self.body.ends_with("\n\n"), "a stream ends with a whole event: {}", self.body);
        let lines = self.body.split("\n\n").filter(|event| !event.is_empty());
        let data = lines.filter(|line| !line.starts_with(':'));
        data.map(|line| line.strip_prefix("data: ").expect(line).to_owned()).collect()
    }

    /// The chunks of a stream that ended well.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{}", self.body);
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

pub fn json_request(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

/// A chat request with these further fields.
pub fn chat(more: Value) -> Value {
    let mut body = serde_json::json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": "hello" }],
        "max_tokens": 8,
        "seed": 1,
    });
    merge(&mut body, more);
    body
}

/// A completions request with these further fields.
pub fn completion(more: Value) -> Value {
    let mut body = serde_json::json!({
        "model": MODEL, "prompt": "hello", "max_tokens": 8, "seed": 1,
    });
    merge(&mut body, more);
    body
}

fn merge(body: &mut Value, more: Value) {
    let (Value::Object(body), Value::Object(more)) = (body, more) else { panic!("objects") };
    body.extend(more);
}
