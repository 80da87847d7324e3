//! Every limit of this crate, with its reason.

/// Policies of a tenant's own. Cost is linear in a set: 84 µs at 40, 1.2 ms at 1,000; the target is 150 µs at about 100.
pub(crate) const OWN_POLICIES_MAX: usize = 100;
/// Bytes of a tenant's own policies: 100 rules of 640 bytes, parsed and validated in well under a second.
pub(crate) const OWN_TEXT_MAX: usize = 64 * 1024;
/// Bytes of one rule. The parser, the validator and the evaluator recurse along a rule's length in the worst case.
pub(crate) const RULE_BYTES_MAX: usize = 4 * 1024;
/// Brackets within brackets, and `if`s, in one rule: each is a level of recursion in the parser.
pub(crate) const RULE_DEPTH_MAX: usize = 16;
/// Operators in one rule: `a && b && …` becomes a tree as deep as it has operators.
pub(crate) const RULE_OPERATORS_MAX: usize = 256;
/// Characters of the `@id` of a tenant's rule.
pub(crate) const RULE_ID_MAX: usize = 64;
/// Characters of a foreign text, or of an error about it, that are repeated.
pub(crate) const QUOTE_MAX: usize = 200;
