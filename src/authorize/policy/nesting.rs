//! How deeply the text of a policy nests, measured before it is parsed: Cedar's parser and validator recurse without
//! looking at the stack, and its evaluator refuses to go deeper than the stack allows, which is an evaluation error.
//! Limits: reads tokens alone and never underestimates; text that is no policy is left to the parser to refuse.

use crate::authorize::limits::{MAX_POLICY_BRACKETS, MAX_POLICY_DEPTH};

/// A policy that nests deeper than allowed, by its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TooDeep {
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// What is open: a policy, or a bracket within it.
#[derive(Default)]
struct Level {
    /// Operators and `if`s that nest within the present element.
    chain: usize,
    /// The longest run of `.` between two operators of the present element, and the run now.
    postfix: usize,
    run: usize,
    /// Branches of `if`, each of which costs the parser as much as a bracket.
    branches: usize,
    /// The deepest bracket within the present element.
    child: usize,
    /// The deepest of the elements before.
    before: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.before.max(self.chain + self.postfix + self.child) + 1
    }

    /// A comma: elements beside each other do not nest.
    fn next_element(&mut self) {
        self.before = self.before.max(self.chain + self.postfix + self.child);
        (self.chain, self.postfix, self.run, self.child) = (0, 0, 0, 0);
    }

    fn operator(&mut self) {
        self.chain += 1;
        self.run = 0;
    }
}

/// The first policy of `text` that passes [`MAX_POLICY_BRACKETS`] or [`MAX_POLICY_DEPTH`].
pub(super) fn too_deep(text: &str) -> Option<TooDeep> {
    let bytes = text.as_bytes();
    let mut levels = vec![Level::default()];
    let (mut start, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        let mut width = 1;
        let open: usize = levels.len() - 1 + levels.iter().map(|level| level.branches).sum::<usize>();
        let outermost = levels.len() == 1;
        let level = levels.last_mut()?;
        let rest = bytes.get(at..).unwrap_or_default();
        match byte {
            b'"' => width = string_width(rest),
            b'/' if next == Some(b'/') => {
                width = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            }
            b'(' | b'[' | b'{' => {
                if open >= MAX_POLICY_BRACKETS {
                    return Some(TooDeep { offset: at, len: 1 });
                }
                levels.push(Level::default());
            }
            b')' | b']' | b'}' if !outermost => {
                let depth = levels.pop().map_or(0, |level| level.depth());
                if let Some(level) = levels.last_mut() {
                    level.child = level.child.max(depth);
                }
            }
            b';' if outermost => {
                if level.depth() > MAX_POLICY_DEPTH {
                    let policy = text.get(start..at).unwrap_or_default().trim_start();
                    return Some(TooDeep { offset: at - policy.len(), len: policy.len() });
                }
                levels = vec![Level::default()];
                start = at + 1;
            }
            b',' => level.next_element(),
            b'&' | b'|' if next == Some(byte) => {
                level.operator();
                width = 2;
            }
            b'+' | b'-' | b'*' | b'!' => level.operator(),
            b'.' => {
                level.run += 1;
                level.postfix = level.postfix.max(level.run);
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                width = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
                match text.get(at..at + width).unwrap_or_default() {
                    "if" => {
                        level.operator();
                        level.branches += 1;
                        if open >= MAX_POLICY_BRACKETS {
                            return Some(TooDeep { offset: at, len: width });
                        }
                    }
                    "when" | "unless" => level.operator(),
                    _ => {}
                }
            }
            _ => {}
        }
        at += width;
    }
    None
}

/// The bytes of the string that `bytes` begins with, quotes included.
fn string_width(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(body: &str) -> String {
        format!("permit (principal, action, resource) when {{ {body} }};")
    }

    #[test]
    fn policies_that_people_write_pass() {
        let wide = (0..5000).map(|n| format!("\"agent-{n}\"")).collect::<Vec<_>>().join(", ");
        for body in [
            format!("[{wide}].contains(context.workflow.id)"),
            vec!["context.transaction.details.amount < 5"; 200].join(" && "),
            "context.a == \"((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((\""
                .to_owned(),
            format!("true // {}", "(".repeat(100)),
        ] {
            assert_eq!(too_deep(&policy(&body)), None, "{}", &body[..40.min(body.len())]);
        }
        assert_eq!(too_deep(&policy("a && b").repeat(1000)), None);
    }

    #[test]
    fn deep_ones_are_found_at_their_place() {
        for body in [
            vec!["true"; 300].join(" && "),
            vec!["true"; 300].join(" || "),
            format!("{}true{}", "(".repeat(80), ")".repeat(80)),
            format!("{}1{}", "{a: ".repeat(80), "}".repeat(80)),
            format!("{}true", "if a then b else ".repeat(80)),
            format!("context{} == 1", ".x".repeat(300)),
        ] {
            assert!(too_deep(&policy(&body)).is_some(), "{}", &body[..40.min(body.len())]);
        }
        let text = format!("{}\n{}", policy("true"), policy(&vec!["true"; 300].join(" && ")));
        assert_eq!(too_deep(&text).unwrap().offset, policy("true").len() + 1);
    }

    #[test]
    fn text_that_is_no_policy_is_left_to_the_parser() {
        for text in ["", ")))", "\"open", "\"\\", "if if", "}{", ";;;", "// comment"] {
            assert_eq!(too_deep(text), None, "{text}");
        }
    }
}
