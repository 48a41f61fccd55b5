//! Mirrored films: whose left side could as well be the right, as of a spine seen from the front.

use std::collections::HashMap;

/// The landmark that each one becomes when its film is mirrored: `.._left` and `.._right` change places, also `left`
/// and `right` in the middle of a name, and a landmark without a side stays what it is.
///
/// # Errors
/// One sentence: which landmark's counterpart there is not, or that no name has a side; such films cannot be mirrored.
pub fn mirror_partners(names: &[String]) -> Result<Vec<usize>, String> {
    let at: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let partner = |(i, name): (usize, &String)| match other_side(name) {
        None => Ok(i),
        Some(other) => at.get(other.as_str()).copied().ok_or_else(|| {
            format!("augment.mirror needs both sides of every landmark: there is {name}, but no {other}")
        }),
    };
    let partners: Vec<usize> = names.iter().enumerate().map(partner).collect::<Result<_, _>>()?;
    if partners.iter().enumerate().all(|(i, &other)| i == other) {
        return Err("augment.mirror needs landmarks whose names say left and right; set it to 0".into());
    }
    Ok(partners)
}

/// The name with its side exchanged; `None` of a name that has none.
fn other_side(name: &str) -> Option<String> {
    let words: Vec<&str> = name.split('_').collect();
    let exchanged = words.iter().map(|&word| match word {
        "left" => "right",
        "right" => "left",
        _ => word,
    });
    let exchanged = exchanged.collect::<Vec<_>>().join("_");
    (exchanged != name).then_some(exchanged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn sides_change_places_and_what_has_none_stays() {
        let partners = mirror_partners(&names(&["t_left", "t_right", "tip", "left_ear", "right_ear", "leftover"]));
        assert_eq!(partners, Ok(vec![1, 0, 2, 4, 3, 5]));
    }

    #[test]
    fn films_with_one_side_cannot_be_mirrored() {
        let error = mirror_partners(&names(&["t_left", "tip"])).expect_err("no t_right");
        assert!(error.contains("there is t_left, but no t_right"), "{error}");
        let error = mirror_partners(&names(&["sella", "nasion"])).expect_err("no sides");
        assert!(error.contains("set it to 0"), "{error}");
    }
}
