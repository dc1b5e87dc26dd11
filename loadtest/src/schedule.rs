//! From a profile and a seed to a plan: the whole schedule is drawn before the start.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::arrivals::Arrivals;
use crate::error::Error;
use crate::lengths::Lengths;
use crate::plan::{Behaviour, Pacing, Plan, PlannedRequest, Prompt, PromptPiece, Tenant};
use crate::profile::{Profile, TenantShape};
use crate::randomness::{Purpose, mix, stream};
use crate::traces::{TracePrompt, TraceRow};

/// Requests of a run that says neither how many nor how long (vLLM's default).
const NUM_PROMPTS_DEFAULT: u32 = 1000;
/// A plan is held in memory, about 100 bytes for each request.
const REQUESTS_MAX: u32 = 2_000_000;
/// A closed loop that is bounded by time gets so many requests for each place and second.
const CLOSED_REQUESTS_PER_PLACE_S: f64 = 20.0;
const CLOSED_REQUESTS_MAX: f64 = 400_000.0;

/// What a schedule is drawn from besides the profile.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Source of all randomness.
    pub seed: u64,
    /// Rows of the profile's trace.
    pub rows: Vec<TraceRow>,
    /// Key of tenants that have none of their own.
    pub api_key: Option<String>,
    /// Retries of requests for which no behaviour says another number.
    pub retries: u32,
}

/// Draws the plan.
///
/// # Errors
/// More requests than a plan can hold.
pub fn draw(profile: &Profile, inputs: &Inputs) -> Result<Plan, Error> {
    profile.check()?;
    let shapes = tenant_shapes(profile);
    let sends = match profile.load.concurrency {
        Some(concurrency) => sends_of_closed(profile, &shapes, inputs.seed, concurrency)?,
        None => sends_of_open(profile, &shapes, inputs)?,
    };
    let mut drawers: Vec<Drawer<'_>> =
        (0..shapes.len()).map(|index| Drawer::new(profile, &shapes, index, inputs)).collect();
    let requests = sends.into_iter().enumerate().map(|(index, send)| {
        drawers[usize::from(send.tenant)].request(index as u32, &send, &inputs.rows)
    });
    let requests = requests.collect();
    let tenants = shapes.iter().map(|shape| tenant(shape, inputs.api_key.as_ref())).collect();
    Ok(Plan {
        seed: inputs.seed,
        pacing: profile
            .load
            .concurrency
            .map_or(Pacing::Open, |concurrency| Pacing::Closed { concurrency }),
        tenants,
        requests,
        warmup_ns: nanoseconds(profile.load.warmup_s),
        cooldown_ns: nanoseconds(profile.load.cooldown_s),
        duration_ns: profile.load.duration_s.map(nanoseconds),
    })
}

/// Mean requests a second that the profile asks for; `None` in closed loop or all at once.
pub fn mean_rate(profile: &Profile) -> Option<f64> {
    let mean = profile.load.arrivals.mean_rate(profile.load.request_rate)?;
    let shapes = tenant_shapes(profile);
    Some((0..shapes.len()).map(|index| mean * rate_part(&shapes, index)).sum())
}

/// When something is sent, and by whom.
#[derive(Clone, Copy, Debug)]
struct Send {
    at_ns: u64,
    tenant: u16,
    /// Of the trace.
    row: usize,
}

/// Draws what a tenant's requests are, in their order.
struct Drawer<'a> {
    profile: &'a Profile,
    tenant: usize,
    retries: u32,
    prompt_tokens: Lengths,
    output_tokens: Lengths,
    prefix_seeds: Vec<u64>,
    lengths: ChaCha8Rng,
    prompts: ChaCha8Rng,
    behaviours: ChaCha8Rng,
}

impl<'a> Drawer<'a> {
    fn new(profile: &'a Profile, shapes: &[TenantShape], tenant: usize, inputs: &Inputs) -> Self {
        let seed = inputs.seed;
        let shape = &shapes[tenant];
        // Shared parts are the same for all tenants: whether a server may share them between
        // tenants is the server's affair, and then visible.
        let mut state = seed ^ 0x7072_6566_6978;
        let prefix_seeds = (0..profile.prompt.prefixes).map(|_| mix(&mut state)).collect();
        Self {
            profile,
            tenant,
            retries: inputs.retries,
            prompt_tokens: shape.prompt_tokens.unwrap_or(profile.prompt.tokens),
            output_tokens: shape.output_tokens.unwrap_or(profile.output.tokens),
            prefix_seeds,
            lengths: stream(seed, Purpose::Lengths, tenant as u32),
            prompts: stream(seed, Purpose::Prompts, tenant as u32),
            behaviours: stream(seed, Purpose::Behaviours, tenant as u32),
        }
    }

    fn request(&mut self, index: u32, send: &Send, rows: &[TraceRow]) -> PlannedRequest {
        // A trace that is shorter than the run begins again.
        let row = send.row.checked_rem(rows.len()).and_then(|row| rows.get(row));
        let (prompt, output_tokens) = match row {
            Some(row) => (self.prompt_of_row(row), row.output_tokens),
            None => (self.prompt(), self.output_tokens.draw(&mut self.lengths)),
        };
        PlannedRequest {
            index,
            tenant: send.tenant,
            scheduled_ns: send.at_ns,
            prompt,
            output_tokens,
            behaviour: self.behaviour(),
        }
    }

    fn prompt(&mut self) -> Prompt {
        let shape = &self.profile.prompt;
        let own = self.prompt_tokens.draw(&mut self.lengths);
        // Drawn also when nothing is shared, so that the words stay when sharing is turned on.
        let (shared, which) =
            (self.prompts.random::<f64>(), self.prompts.random_range(0..self.prefix_seeds.len()));
        let mut pieces = Vec::with_capacity(2);
        if shape.prefix_tokens > 0 && shared < shape.prefix_fraction {
            let seed = self.prefix_seeds[which];
            pieces.push(PromptPiece { seed, tokens: shape.prefix_tokens });
        }
        pieces.push(PromptPiece { seed: self.prompts.random(), tokens: own });
        Prompt::Synthetic(pieces)
    }

    fn prompt_of_row(&mut self, row: &TraceRow) -> Prompt {
        let seed = self.prompts.random();
        match &row.prompt {
            TracePrompt::Text(text) => Prompt::Text(text.clone()),
            TracePrompt::Tokens(tokens) => {
                Prompt::Synthetic(vec![PromptPiece { seed, tokens: *tokens }])
            }
            TracePrompt::Blocks(blocks) => Prompt::Synthetic(
                blocks.iter().map(|&(seed, tokens)| PromptPiece { seed, tokens }).collect(),
            ),
        }
    }

    /// The first behaviour whose turn it is: fractions of one tenant add up.
    fn behaviour(&mut self) -> Behaviour {
        let mut chance = self.behaviours.random::<f64>();
        let name = self.profile.tenants.get(self.tenant).map(|tenant| tenant.name.as_str());
        let plain = Behaviour { retries_max: self.retries, ..Behaviour::default() };
        for shape in &self.profile.behaviours {
            if shape.tenant.is_some() && shape.tenant.as_deref() != name {
                continue;
            }
            if chance < shape.fraction {
                return Behaviour {
                    disconnect_after_chunks: shape.disconnect_after_chunks,
                    read_bytes_per_s: shape.read_bytes_per_s,
                    give_up_after_ms: shape.give_up_after_ms,
                    retries_max: shape.retries.max(self.retries),
                };
            }
            chance -= shape.fraction;
        }
        plain
    }
}

fn tenant_shapes(profile: &Profile) -> Vec<TenantShape> {
    if !profile.tenants.is_empty() {
        return profile.tenants.clone();
    }
    vec![TenantShape {
        name: "default".to_owned(),
        key: None,
        class: None,
        share: 1.0,
        abusive: false,
        rate_multiple: 1.0,
        prompt_tokens: None,
        output_tokens: None,
    }]
}

fn tenant(shape: &TenantShape, api_key: Option<&String>) -> Tenant {
    Tenant {
        name: shape.name.clone(),
        api_key: shape.key.as_ref().or(api_key).cloned(),
        class: shape.class.clone(),
        share: shape.share,
        abusive: shape.abusive,
    }
}

/// A tenant's rate over the profile's: its share, times what it sends too much.
fn rate_part(shapes: &[TenantShape], index: usize) -> f64 {
    let shares: f64 = shapes.iter().map(|shape| shape.share).sum();
    shapes[index].share / shares * shapes[index].rate_multiple
}

fn sends_of_open(
    profile: &Profile,
    shapes: &[TenantShape],
    inputs: &Inputs,
) -> Result<Vec<Send>, Error> {
    let load = &profile.load;
    let paced = load.request_rate.is_some() || matches!(load.arrivals, Arrivals::Ramp { .. });
    if !paced && inputs.rows.first().is_some_and(|row| row.at_ns.is_some()) {
        return sends_of_replay(profile, shapes, inputs);
    }
    if !paced && load.duration_s.is_some() {
        return Err(Error::Usage(
            "--duration needs a pace: give --request-rate or --max-concurrency".to_owned(),
        ));
    }
    let count_max = count_max(profile)?;
    if !paced {
        return Ok(sends_at_once(shapes, inputs.seed, count_max));
    }
    let end_ns = load.duration_s.map_or(u64::MAX, nanoseconds);
    let mean = load.arrivals.mean_rate(load.request_rate).unwrap_or(f64::INFINITY);
    let span_s = load.duration_s.unwrap_or(f64::from(count_max) / mean);
    let mut sends = Vec::new();
    for index in 0..shapes.len() {
        let rng = stream(inputs.seed, Purpose::Arrivals, index as u32);
        let times = load.arrivals.times(load.request_rate, rate_part(shapes, index), span_s, rng);
        // One more than can be sent shows that there are too many.
        let own = times.take_while(|at| *at < end_ns).take(count_max as usize + 1);
        sends.extend(own.map(|at_ns| Send { at_ns, tenant: index as u16, row: 0 }));
    }
    sends.sort_by_key(|send| (send.at_ns, send.tenant));
    if load.num_prompts.is_none() && sends.len() > REQUESTS_MAX as usize {
        return Err(too_many());
    }
    sends.truncate(count_max as usize);
    for (index, send) in sends.iter_mut().enumerate() {
        send.row = index;
    }
    Ok(sends)
}

fn sends_of_replay(
    profile: &Profile,
    shapes: &[TenantShape],
    inputs: &Inputs,
) -> Result<Vec<Send>, Error> {
    let load = &profile.load;
    let speedup = profile.trace.as_ref().map_or(1.0, |trace| trace.speedup);
    let end_ns = load.duration_s.map_or(u64::MAX, nanoseconds);
    let rows = inputs.rows.len().min(load.num_prompts.unwrap_or(REQUESTS_MAX) as usize);
    let mut rng = stream(inputs.seed, Purpose::Tenants, 0);
    let sends = inputs.rows[..rows].iter().enumerate().map(|(row, of_trace)| Send {
        at_ns: (of_trace.at_ns.unwrap_or(0) as f64 / speedup) as u64,
        tenant: draw_tenant(shapes, &mut rng),
        row,
    });
    Ok(sends.take_while(|send| send.at_ns < end_ns).collect())
}

fn sends_of_closed(
    profile: &Profile,
    shapes: &[TenantShape],
    seed: u64,
    concurrency: u32,
) -> Result<Vec<Send>, Error> {
    let load = &profile.load;
    if load.arrivals != Arrivals::Poisson {
        return Err(Error::Usage(
            "a closed loop has no arrivals: --burstiness, --ramp-up-strategy and `arrivals` need \
             --request-rate"
                .to_owned(),
        ));
    }
    let count = match (load.num_prompts, load.duration_s) {
        (Some(_), _) | (None, None) => count_max(profile)?,
        (None, Some(seconds)) => (f64::from(concurrency) * seconds * CLOSED_REQUESTS_PER_PLACE_S)
            .clamp(1000.0, CLOSED_REQUESTS_MAX) as u32,
    };
    Ok(sends_at_once(shapes, seed, count))
}

/// Without times of their own.
fn sends_at_once(shapes: &[TenantShape], seed: u64, count: u32) -> Vec<Send> {
    let mut rng = stream(seed, Purpose::Tenants, 0);
    let sends = (0..count as usize).map(|row| Send {
        at_ns: 0,
        tenant: draw_tenant(shapes, &mut rng),
        row,
    });
    sends.collect()
}

fn draw_tenant(shapes: &[TenantShape], rng: &mut ChaCha8Rng) -> u16 {
    let whole: f64 = (0..shapes.len()).map(|index| rate_part(shapes, index)).sum();
    let mut chance = rng.random::<f64>() * whole;
    for index in 0..shapes.len() {
        chance -= rate_part(shapes, index);
        if chance < 0.0 {
            return index as u16;
        }
    }
    shapes.len() as u16 - 1
}

fn count_max(profile: &Profile) -> Result<u32, Error> {
    let load = &profile.load;
    match (load.num_prompts, load.duration_s) {
        (Some(count), _) if count > REQUESTS_MAX => Err(too_many()),
        (Some(count), _) => Ok(count),
        (None, Some(_)) => Ok(REQUESTS_MAX),
        (None, None) => Ok(NUM_PROMPTS_DEFAULT),
    }
}

fn too_many() -> Error {
    Error::Usage(format!(
        "a run has at most {REQUESTS_MAX} requests: lower --num-prompts, --request-rate or \
         --duration"
    ))
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

#[cfg(test)]
mod tests;
