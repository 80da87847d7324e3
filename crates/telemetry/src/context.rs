//! The place of a span in a trace, as it travels (W3C Trace Context, level 1: `traceparent`).

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// Which span of which trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    /// The trace.
    pub trace: [u8; 16],
    /// The span in it.
    pub span: [u8; 8],
}

impl Context {
    /// Reads a `traceparent`. What is malformed is nothing: the specification has its receiver begin a trace of its own. The
    /// flags are not kept: who asks does not decide what is recorded.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let version = decode::<1>(header.get(..2)?)?;
        let more = match header.get(LENGTH) {
            // A later version may say more, behind another dash.
            Some(b'-') => true,
            Some(_) => return None,
            None => false,
        };
        let dashes = [2_usize, 35, 52].iter().all(|at| header.get(*at) == Some(&b'-'));
        if !dashes || version == [0xff] || (more && version == [0]) {
            return None;
        }
        let (trace, span) = (decode::<16>(header.get(3..35)?)?, decode::<8>(header.get(36..52)?)?);
        decode::<1>(header.get(53..55)?)?;
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span })
    }

    /// The `traceparent` of this place. It says "sampled", for it is of a span that is recorded.
    #[must_use]
    pub fn header(&self) -> String {
        format!("00-{}-{}-01", hex::encode(self.trace), hex::encode(self.span))
    }

    /// A place that others can compute from what they know: the spans of one attempt of a job are one trace, whoever makes
    /// them. `of` is a digest of what names it, and tells nothing of it.
    #[must_use]
    pub fn of(digest: &[u8; 32]) -> Self {
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        for (to, from) in trace.iter_mut().chain(&mut span).zip(digest) {
            *to = *from;
        }
        Self { trace, span }
    }
}

/// Lower-case hexadecimal of exactly `N` bytes, as the specification wants it.
fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the specification, section 3.2.2.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_example_is_read_and_written() {
        let context = Context::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(hex::encode(context.trace), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.header(), EXAMPLE);
        // Flags decide nothing, and a later version may say more.
        for same in ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like"] {
            assert_eq!(Context::parse(same.as_bytes()), Some(context), "{same}");
        }
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b77-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "zz-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = Context::parse(&bytes) {
                prop_assert_eq!(Context::parse(context.header().as_bytes()), Some(context));
            }
        }

        #[test]
        fn a_changed_byte_is_nothing_or_another_place(at in 0_usize..55, byte in any::<u8>()) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            if let Some(context) = Context::parse(&bytes) {
                prop_assert_eq!(context.header().len(), LENGTH);
            }
        }
    }
}
