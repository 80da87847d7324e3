//! Shamir's sharing of 32 bytes over GF(256), with the polynomial of AES (x⁸ + x⁴ + x³ + x + 1), byte by byte.
//!
//! Own code for one reason: what the registries offer under a permissive licence either looks secrets up in tables, whose
//! place in the cache tells about them, or brings a tree of elliptic curves for these sixty lines. Here nothing branches on,
//! or indexes by, a secret. The places of shares (`x`) are public. Vectors of another implementation stand in `testdata`.

use zeroize::Zeroizing;

use crate::Random;
use crate::limits::KEY_BYTES;

/// A secret, or one share's value.
pub(crate) type Value = Zeroizing<[u8; KEY_BYTES]>;

/// The product in GF(256): eight steps, whatever the factors are.
fn multiply(a: u8, b: u8) -> u8 {
    let mut product = 0;
    let mut shifted = a;
    for bit in 0..8 {
        product ^= shifted & 0_u8.wrapping_sub((b >> bit) & 1);
        let overflow = 0_u8.wrapping_sub(shifted >> 7);
        shifted = (shifted << 1) ^ (overflow & 0x1b);
    }
    product
}

/// The inverse: the 254th power. Zero has none, and gives zero.
fn invert(a: u8) -> u8 {
    let mut power = a;
    let mut result = 1;
    for _ in 0..7 {
        power = multiply(power, power);
        result = multiply(result, power);
    }
    result
}

/// Splits a secret into shares at the places 1 to `shares`, of which `threshold` give it back and fewer tell nothing.
///
/// The caller has checked that `1 <= threshold <= shares`.
pub(crate) fn split(secret: &[u8; KEY_BYTES], threshold: u8, shares: u8, random: &mut dyn Random) -> Vec<Value> {
    let mut coefficients: Vec<Value> = Vec::new();
    for _ in 1..threshold {
        let mut drawn = Zeroizing::new([0; KEY_BYTES]);
        random.fill(drawn.as_mut_slice());
        coefficients.push(drawn);
    }
    (1..=shares)
        .map(|x| {
            // Horner, from the highest coefficient down to the secret.
            let mut value = Zeroizing::new([0; KEY_BYTES]);
            for coefficient in coefficients.iter().map(|drawn| &**drawn).rev().chain(std::iter::once(secret)) {
                for (out, byte) in value.iter_mut().zip(coefficient) {
                    *out = multiply(*out, x) ^ byte;
                }
            }
            value
        })
        .collect()
}

/// The secret of shares at these places; `None` when a place is zero or stands twice. Whether it is the right secret,
/// only what it opens can say.
pub(crate) fn combine(points: &[(u8, &[u8; KEY_BYTES])]) -> Option<Value> {
    let mut secret = Zeroizing::new([0; KEY_BYTES]);
    for (place, (x, value)) in points.iter().enumerate() {
        // Lagrange's basis at zero.
        let mut basis = 1;
        for (other, (beside, _)) in points.iter().enumerate() {
            if other != place {
                if beside == x {
                    return None;
                }
                basis = multiply(basis, multiply(*beside, invert(beside ^ x)));
            }
        }
        if *x == 0 {
            return None;
        }
        for (out, byte) in secret.iter_mut().zip(*value) {
            *out ^= multiply(*byte, basis);
        }
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    /// A second way to multiply: long division by the polynomial.
    fn divided(a: u8, b: u8) -> u8 {
        let mut product = 0_u16;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11b << (bit - 8);
            }
        }
        u8::try_from(product).unwrap()
    }

    #[test]
    fn all_products_and_inverses() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(multiply(a, b), divided(a, b), "{a} * {b}");
            }
            assert_eq!(multiply(a, invert(a)), u8::from(a != 0), "{a}");
        }
    }

    /// Shares that another implementation made (see `testdata/README.md`).
    #[test]
    fn shares_of_another_implementation() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../testdata/shamir.json")).unwrap();
        let mut seen = 0;
        for vector in vectors["vectors"].as_array().unwrap() {
            let bytes = |text: &serde_json::Value| -> [u8; 32] { hex::decode(text.as_str().unwrap()).unwrap().try_into().unwrap() };
            let secret = bytes(&vector["secret"]);
            let shares: Vec<(u8, [u8; 32])> = vector["shares"]
                .as_array()
                .unwrap()
                .iter()
                .map(|share| (u8::try_from(share["x"].as_u64().unwrap()).unwrap(), bytes(&share["y"])))
                .collect();
            let threshold = usize::try_from(vector["threshold"].as_u64().unwrap()).unwrap();
            for first in 0..shares.len() {
                let chosen: Vec<(u8, &[u8; 32])> = (0..threshold).map(|next| &shares[(first + next) % shares.len()]).map(|(x, y)| (*x, y)).collect();
                assert_eq!(*combine(&chosen).unwrap(), secret);
                assert_ne!(*combine(&chosen[1..]).unwrap_or_default(), secret, "one too few");
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn every_threshold_gives_the_secret_back_and_one_fewer_does_not() {
        let mut random = SystemRandom;
        for (threshold, count) in [(1, 1), (1, 3), (2, 2), (2, 3), (3, 5), (5, 5), (7, 20), (32, 32)] {
            let secret: [u8; 32] = <dyn Random>::array(&mut random);
            let shares = split(&secret, threshold, count, &mut random);
            let points: Vec<(u8, &[u8; 32])> = (1..).zip(shares.iter().map(|value| &**value)).collect();
            let enough = usize::from(threshold);
            assert_eq!(*combine(&points[points.len() - enough..]).unwrap(), secret);
            assert_eq!(*combine(&points).unwrap(), secret, "more than enough");
            if enough > 1 {
                assert_ne!(*combine(&points[..enough - 1]).unwrap(), secret);
            }
        }
    }

    #[test]
    fn places_that_are_none_are_refused() {
        let value = [7; 32];
        assert!(combine(&[(1, &value), (1, &value)]).is_none());
        assert!(combine(&[(0, &value)]).is_none());
    }
}
