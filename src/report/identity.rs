//! Names that are the same wherever and whenever they are made: event ids and tokens of DICOM identifiers.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The id of an event: the same film, model and configuration give the same id on every resend, replay and
/// reinstallation (R27).
///
/// # Examples
/// It can be recomputed in a shell:
/// `printf '%s\n' "$IMAGE_SHA256" "$MODEL_SHA256" "$CONFIG_SHA256" | sha256sum`.
/// ```
/// use landmarkd::report::EventId;
/// let id = EventId::of_result("aa", "bb", "cc");
/// assert_eq!(id.to_string(), "97d220e0067d22e8cf1371e1cd782e421614e0c08956f1866c9b40f7a35b1aaa");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId([u8; 32]);

impl EventId {
    /// The id of a film's result, from three hexadecimal SHA-256 digests.
    #[must_use]
    pub fn of_result(image: &str, model: &str, config: &str) -> Self {
        Self(Sha256::digest(format!("{image}\n{model}\n{config}\n")).into())
    }

    /// The id of a film's refusal: another event than the same film's result, and as stable.
    ///
    /// `image` is the digest of the film's bytes. Of a file that could not be read there is none: then any text that
    /// tells this file from others and from its later versions, such as its inode, size and mtime.
    #[must_use]
    pub fn of_error(image: &str, model: &str, config: &str) -> Self {
        Self::of_result(image, model, config).refused()
    }

    /// The id of the refusal that takes the place of the event with this id.
    #[must_use]
    pub fn refused(&self) -> Self {
        Self(Sha256::digest(format!("refused\n{self}\n")).into())
    }

    /// The id from its stored form.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// The site's secret for tokens of DICOM identifiers (R31); it shows in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey(Vec<u8>);

impl TokenKey {
    /// The key with these bytes; any length, 32 random bytes are right.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// HMAC-SHA-256 of an identifier, hexadecimal (RFC 2104).
    ///
    /// DICOM pads UIDs to an even length: trailing NULs and spaces are not part of the identifier (PS3.5 9.1).
    #[must_use]
    pub fn token(&self, uid: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(uid.trim_end_matches(['\0', ' ']).as_bytes());
        EventId::from_bytes(mac.finalize().into_bytes().into()).to_string()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_hmac_sha_256_as_rfc_4231_has_it() {
        let token = TokenKey::new("Jefe").token("what do ya want for nothing?");
        assert_eq!(token, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn the_padding_of_a_uid_does_not_change_its_token() {
        let key = TokenKey::new([7; 32]);
        assert_eq!(key.token("1.2.840.10008"), key.token("1.2.840.10008\0"));
        assert_ne!(key.token("1.2.840.10008"), TokenKey::new([8; 32]).token("1.2.840.10008"));
    }

    #[test]
    fn a_key_shows_no_byte_of_itself() {
        assert_eq!(format!("{:?}", TokenKey::new("secret")), "TokenKey(..)");
    }

    #[test]
    fn a_result_and_a_refusal_of_one_film_are_two_events() {
        let result = EventId::of_result("a", "b", "c");
        assert_ne!(result, EventId::of_error("a", "b", "c"));
        assert_eq!(result.refused(), EventId::of_error("a", "b", "c"));
        assert_ne!(result, EventId::of_result("ab", "", "c"));
    }
}
