//! Which feature combinations exist, and which of them the rows use.

use crate::workspace::Package;

/// Features whose tests need something that is not in the repository. Their tests have rows of their own.
const NEEDS_PROVISIONING: &[&str] = &["real-gateway"];

/// Every combination of the features of `package`, from none to all. `default` is a name for others, so it is left
/// out; a crate of this workspace has a handful of features at most.
pub(crate) fn combinations(package: &Package) -> Vec<Vec<&str>> {
    powerset(&names(package))
}

/// The features that the tests of `package` are built with in its own row.
pub(crate) fn for_tests(package: &Package) -> Vec<&str> {
    names(package)
        .into_iter()
        .filter(|name| !NEEDS_PROVISIONING.contains(name))
        .collect()
}

fn names(package: &Package) -> Vec<&str> {
    package
        .features
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "default")
        .collect()
}

fn powerset<'a>(items: &[&'a str]) -> Vec<Vec<&'a str>> {
    items.iter().fold(vec![Vec::new()], |mut sets, item| {
        let with_item: Vec<Vec<&str>> = sets
            .iter()
            .map(|set| [&set[..], &[*item]].concat())
            .collect();
        sets.extend(with_item);
        sets
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_powerset_holds_every_combination_once() {
        assert_eq!(powerset(&[]), [Vec::<&str>::new()]);
        assert_eq!(
            powerset(&["a", "b"]),
            [vec![], vec!["a"], vec!["b"], vec!["a", "b"]]
        );
        assert_eq!(powerset(&["a", "b", "c", "d"]).len(), 16);
    }
}
