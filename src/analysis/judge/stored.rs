//! How stakes are stored: as text, which is read back to the last bit. A JSON number may come back as its neighbour, and what is
//! read and written again after every look would drift.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// In the place of a stake that is lost.
const LOST: &str = "-";

pub fn serialize<const N: usize, S: Serializer>(stakes: &[Option<f64>; N], serializer: S) -> Result<S::Ok, S::Error> {
    let words: Vec<String> =
        stakes.iter().map(|stake| stake.map_or_else(|| LOST.to_owned(), |stake| stake.to_string())).collect();
    serializer.serialize_str(&words.join(" "))
}

pub fn deserialize<'de, const N: usize, D: Deserializer<'de>>(deserializer: D) -> Result<[Option<f64>; N], D::Error> {
    let text = String::deserialize(deserializer)?;
    let stakes: Result<Vec<Option<f64>>, _> =
        text.split(' ').map(|word| if word == LOST { Ok(None) } else { word.parse().map(Some) }).collect();
    let stakes = stakes.map_err(D::Error::custom)?;
    let count = stakes.len();
    stakes.try_into().map_err(|_| D::Error::custom(format!("{count} stakes, not {N}")))
}

/// Stakes of which none can be lost.
pub mod whole {
    use serde::{Deserializer, Serializer};

    pub fn serialize<const N: usize, S: Serializer>(stakes: &[f64; N], serializer: S) -> Result<S::Ok, S::Error> {
        super::serialize(&stakes.map(Some), serializer)
    }

    pub fn deserialize<'de, const N: usize, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; N], D::Error> {
        // What is lost is found to be no valid stake.
        super::deserialize(deserializer).map(|stakes: [Option<f64>; N]| stakes.map(|stake| stake.unwrap_or(f64::NAN)))
    }
}
