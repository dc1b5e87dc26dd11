use serde_json::json;

use super::*;
use crate::text::tests::LIMITS;

fn compiled(source: &str) -> ChatTemplate {
    with_limits(source, LIMITS).unwrap()
}

fn with_limits(source: &str, limits: TextLimits) -> Result<ChatTemplate, TextError> {
    let roles = match json!({"bos_token": "<s>", "eos_token": "</s>"}) {
        Json::Object(roles) => roles,
        _ => unreachable!(),
    };
    let special = SpecialStrings::new(["<s>", "</s>"].into_iter());
    ChatTemplate::new(&Json::from(source), roles, special, limits)
}

fn chat(content: &str) -> ChatInput {
    let message = json!({"role": "user", "content": content});
    ChatInput { messages: vec![message], ..ChatInput::default() }
}

fn rendered(source: &str, content: &str) -> String {
    compiled(source).render(&chat(content)).unwrap().text()
}

#[test]
fn templates_have_what_jinja2_gives_them() {
    let cases = [
        ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>hi</s>"),
        ("{% for m in messages %}\n  {% if true %}\n x\n  {% endif %}\n{% endfor %}", " x\n"),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}\
          {% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        ("{{ messages | tojson }}", r#"[{"role": "user", "content": "hi"}]"#),
        (
            "{{ {'b': [1, 2.0, none, true], 'a': '<é>'} | tojson }}",
            r#"{"b": [1, 2.0, null, true], "a": "<é>"}"#,
        ),
        (
            "{{ {'b': [1], 'a': {}} | tojson(indent=2, sort_keys=true) }}",
            "{\n  \"a\": {},\n  \"b\": [\n    1\n  ]\n}",
        ),
        ("{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}", r#"[1,{"a":2}]"#),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", r#""\u00e9""#),
        ("{{ messages[0].content.strip().upper().split('I')[0] }}", "H"),
        ("{{ 'a.b.c'.rsplit('.', 1) | join('|') }}", "a.b|c"),
        ("{{ messages[0].items() | list | length }}{{ messages[0].get('x', 'd') }}", "2d"),
        ("{%- generation -%} a {%- endgeneration %}{% generation %}\nb{% endgeneration %}", "ab"),
        (
            "{{ none }}|{{ true }}|{{ tools is none }}|{{ nothing }}|{{ 'x' if tools else 'y' }}",
            "None|True|True||y",
        ),
        ("{{ strftime_now('%Y-%m-%d') }}", "1970-01-01"),
        ("{{ messages is sequence }}{{ 'a' is sequence }}{{ 1 is sequence }}", "TrueTrueFalse"),
        (
            "{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f('a') }}{{ f('a', y='b') }}",
            "[ad][ab]",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(source, "hi"), expected, "{source}");
    }
}

#[test]
fn a_template_may_refuse() {
    let source = "{{ raise_exception('roles must ' ~ 'alternate') }}";
    let error = compiled(source).render(&chat("hi")).unwrap_err();
    assert_eq!(error, TextError::Template("roles must alternate".to_owned()));
    let nested = format!("{{% macro f() %}}{source}{{% endmacro %}}{{{{ f() }}}}");
    assert_eq!(compiled(&nested).render(&chat("hi")).unwrap_err(), error);
    assert!(matches!(with_limits("{% if %}", LIMITS), Err(TextError::Template(_))));
}

#[test]
fn fuel_and_output_are_limited_while_rendering() {
    let forever = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
    let limits = TextLimits { template_fuel: 10_000, rendered_bytes_max: 100 };
    let error = with_limits(forever, limits).unwrap().render(&chat("hi")).unwrap_err();
    assert_eq!(error, TextError::TemplateLimit { what: "instructions", limit: 10_000 });
    let wide = "{% for i in range(50) %}{{ messages[0].content }}{% endfor %}";
    let template = with_limits(wide, limits).unwrap();
    assert_eq!(template.render(&chat("hi")).unwrap().text().len(), 100);
    let error = template.render(&chat("hi!")).unwrap_err();
    assert_eq!(error, TextError::TemplateLimit { what: "bytes", limit: 100 });
}

#[test]
fn the_final_message_can_be_left_open() {
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}\
        {% if add_generation_prompt %}[assistant]{% endif %}";
    let template = compiled(source);
    let mut chat = chat("hi");
    chat.messages.push(json!({"role": "assistant", "content": "so be"}));
    chat.continue_final_message = true;
    assert_eq!(template.render(&chat).unwrap().text(), "[user]hi</s>[assistant]so be");
    chat.messages[1]["content"] = json!("a</s> be ");
    assert_eq!(template.render(&chat).unwrap().text(), "[user]hi</s>[assistant]a</s> be");
    chat.messages[1]["content"] = json!([{"type": "text", "text": "one"}]);
    assert_eq!(template.render(&chat).unwrap().text(), "[user]hi</s>[assistant]one");
    chat.messages[1]["content"] = json!(null);
    assert!(matches!(template.render(&chat), Err(TextError::Template(_))));
    chat.add_generation_prompt = true;
    assert!(matches!(template.render(&chat), Err(TextError::Template(_))));
}

#[test]
fn lists_of_parts_go_to_templates_that_read_them() {
    let source = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
        {% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}";
    let template = compiled(source);
    assert_eq!(template.default_takes, ContentFormat::Parts);
    let mut chat = chat("");
    chat.messages[0]["content"] = json!([{"type": "text", "text": "a"}, {"text": "b"}]);
    assert_eq!(template.render(&chat).unwrap().text(), "<a><b>");
    for strings in ["{{ messages[0].content }}", "{{ messages | tojson }}", "{{ 1 / 0 }}"] {
        assert_eq!(compiled(strings).default_takes, ContentFormat::Strings, "{strings}");
    }
}

#[test]
fn a_template_for_tools_is_used_with_tools() {
    let source = json!([{"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }} tools"},
        {"name": "rag", "template": "{{ no syntax"}]);
    let template = ChatTemplate::new(
        &source,
        SpecialRoles::new(),
        SpecialStrings::new([].into_iter()),
        LIMITS,
    );
    let template = template.unwrap();
    let mut chat = chat("hi");
    assert_eq!(template.render(&chat).unwrap().text(), "plain");
    chat.tools = Some(vec![json!({})]);
    assert_eq!(template.render(&chat).unwrap().text(), "1 tools");
}

#[test]
fn kwargs_are_variables_but_cannot_replace_the_request() {
    let template = compiled("{{ enable_thinking }}{{ bos_token }}");
    let mut chat = chat("hi");
    chat.kwargs.insert("enable_thinking".to_owned(), json!(false));
    chat.kwargs.insert("bos_token".to_owned(), json!("<s>"));
    let rendered = template.render(&chat).unwrap();
    assert_eq!(rendered.text(), "False<s>");
    assert!(rendered.mark.is_some(), "a special token from a request is text");
    chat.kwargs.insert("messages".to_owned(), json!([]));
    assert!(matches!(template.render(&chat), Err(TextError::Template(_))));
}

/// Qwen 3's template walks `messages[::-1]`. On an empty list the engine's slice reads element 0
/// and panics; found by mutating templates. The request gets an error, the thread goes on.
#[test]
fn a_panic_of_the_template_engine_is_an_error_of_the_request() {
    let template = compiled("{% for m in messages[::-1] %}{{ m.content }}{% endfor %}");
    let none = ChatInput::default();
    match template.render(&none) {
        Ok(rendered) => assert_eq!(rendered.text(), "", "the engine was mended"),
        Err(TextError::Template(says)) => {
            assert!(says.contains("template engine failed"), "{says}")
        }
        Err(other) => panic!("{other}"),
    }
    assert_eq!(template.render(&chat("hi")).unwrap().text(), "hi");
}
