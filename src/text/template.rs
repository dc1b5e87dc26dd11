//! Chat templates: messages to a prompt, as `transformers` renders them with Jinja2.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::Value as Json;

use super::mark::{Noncharacters, SpecialStrings};
use super::python;
use super::tokenizer::SpecialRoles;
use super::{ChatInput, Rendered, TextError, TextLimits};

/// A model's chat templates, compiled.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    /// There is one for requests with tools.
    has_tool_use: bool,
    default_takes: ContentFormat,
    tool_use_takes: ContentFormat,
    roles: SpecialRoles,
    special: SpecialStrings,
    /// Noncharacters in the templates, which cannot be marks.
    noncharacters: Noncharacters,
    limits: TextLimits,
}

/// What a template makes of a message whose content is a list of parts.
///
/// Found by rendering one at start: a template that reads lists shows the part's text but neither
/// its `type` key nor Python's list brackets. All templates take strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentFormat {
    /// It shows the texts of the parts, so it gets the parts as they came.
    Parts,
    /// It does not read lists, so text parts are joined by a newline before it sees them.
    Strings,
}

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";
/// Template macros may call each other this deep.
const RECURSION_MAX: usize = 100;
/// Variables that a request's `chat_template_kwargs` cannot set, since they have their own fields.
const RESERVED: [&str; 4] =
    ["messages", "tools", "add_generation_prompt", "continue_final_message"];

impl ChatTemplate {
    /// Compiles the templates of a model: a string, or a list of `{"name", "template"}`.
    ///
    /// # Errors
    /// [`TextError::Template`] for a syntax error, with its line.
    pub(super) fn new(
        source: &Json,
        roles: SpecialRoles,
        special: SpecialStrings,
        limits: TextLimits,
    ) -> Result<Self, TextError> {
        let mut this = Self {
            environment: environment(limits),
            has_tool_use: false,
            default_takes: ContentFormat::Strings,
            tool_use_takes: ContentFormat::Strings,
            roles,
            special,
            noncharacters: Noncharacters::default(),
            limits,
        };
        for (name, source) in named_templates(source)? {
            this.noncharacters.note(source);
            this.has_tool_use |= name == TOOL_USE;
            this.environment
                .add_template_owned(name.to_owned(), without_generation_tags(source))
                .map_err(|error| template_error(&error, limits))?;
        }
        this.default_takes = this.content_format(DEFAULT);
        if this.has_tool_use {
            this.tool_use_takes = this.content_format(TOOL_USE);
        }
        Ok(this)
    }

    /// Renders messages.
    pub(super) fn render(&self, chat: &ChatInput) -> Result<Rendered, TextError> {
        let (name, takes) = match self.has_tool_use && chat.tools.is_some() {
            true => (TOOL_USE, self.tool_use_takes),
            false => (DEFAULT, self.default_takes),
        };
        let mut messages = chat.messages.clone();
        if takes == ContentFormat::Strings {
            for (index, message) in messages.iter_mut().enumerate() {
                join_parts(message, index)?;
            }
        }
        self.render_messages(name, chat, messages)
    }

    fn render_messages(
        &self,
        name: &str,
        chat: &ChatInput,
        mut messages: Vec<Json>,
    ) -> Result<Rendered, TextError> {
        let mut noncharacters = self.noncharacters;
        messages.iter().for_each(|message| note_strings(message, &mut noncharacters));
        chat.tools.iter().flatten().for_each(|tool| note_strings(tool, &mut noncharacters));
        for (name, value) in &chat.kwargs {
            if RESERVED.contains(&name.as_str()) {
                let message = format!("chat_template_kwargs cannot set {name:?}");
                return Err(TextError::Template(message));
            }
            note_strings(value, &mut noncharacters);
        }
        let mut take = || {
            noncharacters.take_unused().ok_or_else(|| {
                let message = "they contain every noncharacter that Unicode has";
                TextError::Template(message.to_owned())
            })
        };
        let (mark, tag) = (take()?, take()?);
        let end = match chat.continue_final_message {
            true if chat.add_generation_prompt => {
                return Err(TextError::Template(
                    "add_generation_prompt and continue_final_message exclude each other: one \
                     starts a new message, the other goes on with the last"
                        .to_owned(),
                ));
            }
            true => Some(tag_final_message(&mut messages, tag)?),
            false => None,
        };
        let mut text = self.render_values(name, chat, &messages, mark)?;
        if let Some(end) = end {
            cut_at_tag(&mut text, mark, tag, &end)?;
        }
        let mark = text.contains(mark).then_some(mark);
        Ok(Rendered { text, mark })
    }

    fn render_values(
        &self,
        name: &str,
        chat: &ChatInput,
        messages: &[Json],
        mark: char,
    ) -> Result<String, TextError> {
        let value = |json: &Json| self.value(json, mark);
        let list = |values: &[Json]| Value::from(values.iter().map(value).collect::<Vec<_>>());
        let mut variables: Vec<(&str, Value)> = Vec::new();
        for (role, token) in &self.roles {
            variables.push((role, plain_value(token)));
        }
        variables.push(("documents", Value::from(())));
        let unix_s = chat.unix_s;
        let strftime_now = move |format: &str| python::strftime(unix_s, format);
        variables.push(("strftime_now", Value::from_function(strftime_now)));
        for (name, json) in &chat.kwargs {
            variables.push((name, value(json)));
        }
        variables.push(("messages", list(messages)));
        variables.push(("tools", chat.tools.as_deref().map_or(Value::from(()), list)));
        variables.push(("add_generation_prompt", Value::from(chat.add_generation_prompt)));

        let mut out = LimitedWriter { bytes: Vec::new(), limit: self.limits.rendered_bytes_max };
        let template = self.environment.get_template(name);
        let template = template.map_err(|error| template_error(&error, self.limits))?;
        let render = || template.render_captured_to(Value::from_pairs(variables), &mut out);
        // Fuzzing found templates over which the engine itself panics (minijinja 3.0.5: an empty
        // list reversed by a slice). What a request made it do must end as that request's error.
        // The environment is only read, and a half-written output is dropped.
        match catch_unwind(AssertUnwindSafe(render)) {
            Ok(rendered) => rendered.map_err(|error| template_error(&error, self.limits))?,
            Err(_) => {
                let message = "the template engine failed on them";
                return Err(TextError::Template(message.to_owned()));
            }
        };
        String::from_utf8(out.bytes)
            .map_err(|error| TextError::Template(format!("its output is not UTF-8: {error}")))
    }

    /// A request's value as the template sees it, special tokens in strings and keys broken.
    fn value(&self, json: &Json, mark: char) -> Value {
        let string = |text: &str| match self.special.broken(text, mark) {
            Some(broken) => Value::from(broken),
            None => Value::from(text),
        };
        match json {
            Json::String(text) => string(text),
            Json::Array(items) => {
                Value::from(items.iter().map(|item| self.value(item, mark)).collect::<Vec<_>>())
            }
            Json::Object(entries) => Value::from_pairs(
                entries.iter().map(|(key, value)| (string(key), self.value(value, mark))),
            ),
            other => plain_value(other),
        }
    }

    fn content_format(&self, name: &str) -> ContentFormat {
        const NEEDLE: &str = "9d3fneedle";
        let message = serde_json::json!({
            "role": "user", "content": [{"type": "text", "text": NEEDLE}]
        });
        let probe = ChatInput { add_generation_prompt: true, ..ChatInput::default() };
        match self.render_messages(name, &probe, vec![message]) {
            Ok(rendered) => {
                let text = rendered.text;
                let dumped = ["'text'", "\"text\""].iter().any(|key| text.contains(key));
                match text.contains(NEEDLE) && !dumped {
                    true => ContentFormat::Parts,
                    false => ContentFormat::Strings,
                }
            }
            Err(_) => ContentFormat::Strings,
        }
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("default_takes", &self.default_takes).finish()
    }
}

/// Collects output up to a limit, and refuses more while the template is still running.
struct LimitedWriter {
    bytes: Vec<u8>,
    limit: u64,
}

impl io::Write for LimitedWriter {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + part.len()) as u64 > self.limit {
            return Err(io::Error::other("the output limit is reached"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment(limits: TextLimits) -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_fuel(Some(limits.template_fuel));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", python::to_json);
    environment.add_filter("trim", python::trim);
    environment.add_test("sequence", python::is_sequence);
    environment.add_function("raise_exception", python::raise_exception);
    environment
}

/// The templates that can be used, by name.
fn named_templates(source: &Json) -> Result<Vec<(&str, &str)>, TextError> {
    let wrong = |message: &str| Err(TextError::Template(format!("chat_template: {message}")));
    let templates = match source {
        Json::String(template) => return Ok(vec![(DEFAULT, template)]),
        Json::Array(templates) => templates,
        _ => return wrong("expected a string or a list of named templates"),
    };
    let mut named = Vec::new();
    for template in templates {
        match (template["name"].as_str(), template["template"].as_str()) {
            (Some(name @ (DEFAULT | TOOL_USE)), Some(source)) => named.push((name, source)),
            (Some(_), Some(_)) => {}
            _ => return wrong("a named template needs \"name\" and \"template\""),
        }
    }
    if !named.iter().any(|(name, _)| *name == DEFAULT) {
        return wrong("none of the named templates is called \"default\"");
    }
    Ok(named)
}

/// `{% generation %}` only tells training which tokens are the assistant's; `{% with %}` has the
/// same scope and the same whitespace rules.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let (before, tag) = rest.split_at(open + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let inner = tag[..end].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        let replacement = match inner.trim() {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        out.push_str(&tag[..end].replacen(inner.trim(), replacement, 1));
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

/// Turns a list of text parts into a string.
fn join_parts(message: &mut Json, index: usize) -> Result<(), TextError> {
    let Some(content) = message.get_mut("content") else { return Ok(()) };
    let Json::Array(parts) = &*content else { return Ok(()) };
    let text = |part: &Json| match (part, part["text"].as_str()) {
        (Json::String(text), _) => Ok(text.clone()),
        (_, Some(text)) => Ok(text.to_owned()),
        _ => Err(TextError::Template(format!(
            "message {index} has a content part of type {}, and this model reads text only",
            part["type"]
        ))),
    };
    let texts: Vec<String> = parts.iter().map(text).collect::<Result<_, _>>()?;
    *content = Json::String(texts.join("\n"));
    Ok(())
}

/// Appends the tag to the last message, as `transformers` does, and returns the message's text.
fn tag_final_message(messages: &mut [Json], tag: char) -> Result<String, TextError> {
    let nothing = || {
        let message = "continue_final_message: the last message has no text to continue";
        TextError::Template(message.to_owned())
    };
    let content = messages.last_mut().and_then(|last| last.get_mut("content"));
    let text = match content.ok_or_else(nothing)? {
        text @ Json::String(_) => text,
        Json::Array(parts) => {
            let texts = parts.iter_mut().rev().filter_map(|part| part.get_mut("text"));
            texts.into_iter().next().ok_or_else(nothing)?
        }
        _ => return Err(nothing()),
    };
    let Json::String(text) = text else { return Err(nothing()) };
    let end = text.clone();
    text.extend([tag, ' ']);
    Ok(end)
}

/// Cuts a prompt where the last message ends.
fn cut_at_tag(text: &mut String, mark: char, tag: char, end: &str) -> Result<(), TextError> {
    let at = text.rfind(tag);
    let shown = text.replace(mark, "").contains(python::strip(end, None, true, true));
    let (Some(at), true) = (at, shown) else {
        return Err(TextError::Template(
            "continue_final_message: the template does not show the last message as it is"
                .to_owned(),
        ));
    };
    let keeps_space = text[at + tag.len_utf8()..].starts_with(' ');
    text.truncate(at);
    if !keeps_space {
        // The template trimmed the message, so the end of it is trimmed too.
        text.truncate(python::strip(text, None, false, true).len());
    }
    Ok(())
}

fn note_strings(json: &Json, noncharacters: &mut Noncharacters) {
    match json {
        Json::String(text) => noncharacters.note(text),
        Json::Array(items) => items.iter().for_each(|item| note_strings(item, noncharacters)),
        Json::Object(entries) => {
            for (key, value) in entries {
                noncharacters.note(key);
                note_strings(value, noncharacters);
            }
        }
        _ => {}
    }
}

/// A value without regard to special tokens.
fn plain_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(plain_value).collect::<Vec<_>>()),
        Json::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), plain_value(value))))
        }
    }
}

fn template_error(error: &minijinja::Error, limits: TextLimits) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(python::Raised(message)) = error.downcast_ref() {
            return TextError::Template(message.clone());
        }
        match error.downcast_ref().map(minijinja::Error::kind) {
            Some(ErrorKind::OutOfFuel) => {
                let limit = limits.template_fuel;
                return TextError::TemplateLimit { what: "instructions", limit };
            }
            Some(ErrorKind::WriteFailure) => {
                let limit = limits.rendered_bytes_max;
                return TextError::TemplateLimit { what: "bytes", limit };
            }
            _ => cause = error.source(),
        }
    }
    TextError::Template(error.to_string())
}

#[cfg(test)]
mod tests;
