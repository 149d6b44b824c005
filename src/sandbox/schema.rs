//! Structural schemas.

/// The shape of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Schema {}
