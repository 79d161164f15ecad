//! JSON in the one form of RFC 8785: members sorted by the UTF-16 code units of their names, numbers as ECMAScript writes a
//! double, no white space. Limits: a number past what a double holds is written as the nearest double, as the RFC has it.

use serde_json::Value;

/// The canonical form; `None` for a number that is not finite, which no JSON can hold.
pub(super) fn canonical(value: &Value) -> Option<String> {
    let mut out = String::new();
    write(&mut out, value)?;
    Some(out)
}

fn write(out: &mut String, value: &Value) -> Option<()> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => {
            let number = number.as_f64().filter(|number| number.is_finite())?;
            out.push_str(ryu_js::Buffer::new().format_finite(number));
        }
        Value::String(text) => write_text(out, text)?,
        Value::Array(values) => {
            out.push('[');
            for (n, value) in values.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(out, value)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (n, (name, value)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_text(out, name)?;
                out.push(':');
                write(out, value)?;
            }
            out.push('}');
        }
    }
    Some(())
}

/// Serde's own escapes are the RFC's: the short ones, `\u00xx` in lower case for other controls, and no more.
fn write_text(out: &mut String, text: &str) -> Option<()> {
    out.push_str(&serde_json::to_string(text).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        canonical(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfc_come_out_as_it_has_them() {
        // RFC 8785, sections 3.2.2 and 3.2.3.
        assert_eq!(
            read(
                r#"{"numbers":[333333333.3333333,1E30,4.50,2e-3,0.000000000000000000000000001],
                   "string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#
            ),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        // The surrogates of an emoji come before U+FB33.
        assert_eq!(
            read(r#"{"\ufb33":7,"\ud83d\ude00":6,"\u20ac":5,"\u00f6":4,"\u0080":3,"1":2,"\r":1}"#),
            "{\"\\r\":1,\"1\":2,\"\u{80}\":3,\"ö\":4,\"€\":5,\"😀\":6,\"\u{fb33}\":7}"
        );
    }

    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        // RFC 8785, appendix B, and what a double cannot tell apart.
        for (bits, text) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5554, "333333333.33333325"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            assert_eq!(canonical(&f64::from_bits(bits).into()).as_deref(), Some(text), "{bits:x}");
        }
        // What is read is the nearest double, so that whoever else reads the same text gets the same digest.
        let nearest = "[5.570660194e-16,9961579.883806607,3.185399215e-23]";
        assert_eq!(read(nearest), nearest);
        assert_eq!(read("[1.0,1,9007199254740993,-0]"), "[1,1,9007199254740992,0]");
    }
}
