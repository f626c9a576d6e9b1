//! The status page: one HTML file with its style and its script.

/// Style and script are in the page, and only they run: those with the nonce of this answer. The
/// icon is a `data:` URL.
pub(super) fn policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The page with these texts in the places that have their names.
pub(super) fn page(texts: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut rest = include_str!("page.html");
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("each place ends");
        page.push_str(before);
        match name {
            "style" => page.push_str(include_str!("style.css")),
            "script" => page.push_str(include_str!("script.js")),
            _ => {
                let text = texts.iter().find(|(known, _)| *known == name);
                let (_, text) = text.expect("each place has a text");
                page.push_str(&escape(text));
            }
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

/// A text as HTML, also within quotes.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(char),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_no_place_is_left() {
        let hostile = "</title><script>alert(1)</script>\" onload='x' {{nonce}}";
        let names = [
            "word",
            "reason",
            "level",
            "since",
            "since_text",
            "host",
            "version",
        ];
        let mut texts: Vec<_> = names.map(|name| (name, hostile)).to_vec();
        texts.push(("nonce", "abc"));
        let page = page(&texts);
        let escaped = "&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; {{nonce}}";
        assert!(page.matches(escaped).count() >= names.len());
        assert!(!page.contains("alert(1)</script>"), "{page}");
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("nonce=\"abc\"").count(), 2);
        let left = page.replace(escaped, "");
        assert!(!left.contains("{{"), "{left}");
    }

    #[test]
    fn the_policy_allows_what_has_the_nonce_and_nothing_inline() {
        let policy = policy("abc");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(policy.contains("script-src 'nonce-abc';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
