//! The order in which captured bytes pass the pipeline's stages. Owns the order only; the agent implements the stages.

/// A stage of the pipeline. [`Stage::ORDER`] is the only order in which stages may run: redaction must see text before it
/// is compressed, and the digest must be of exactly the bytes that are uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reads the tool's output or the file it made.
    Source,
    /// Cuts at the byte limit and says so.
    Limit,
    /// Removes secrets from text.
    Redact,
    /// Compresses.
    Compress,
    /// Encrypts for the owner's key.
    Encrypt,
    /// Computes length, SHA-256 and CRC-64/NVME.
    Hash,
    /// Cuts into parts and uploads them.
    Parts,
}

impl Stage {
    /// The fixed order.
    pub const ORDER: [Self; 7] = [
        Self::Source,
        Self::Limit,
        Self::Redact,
        Self::Compress,
        Self::Encrypt,
        Self::Hash,
        Self::Parts,
    ];
}
