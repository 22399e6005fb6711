//! Where in the world this machine seems to be, by its settings alone: nothing is asked over the network.

use std::env;

/// Names of the time zone of mainland China in the time zone database; the first is the zone, the others are links to it.
const MAINLAND_CHINA: [&str; 5] = [
    "Asia/Shanghai",
    "Asia/Chongqing",
    "Asia/Chungking",
    "Asia/Harbin",
    "PRC",
];

/// What the machine says about where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Its time zone, as in `Europe/Berlin`.
    pub time_zone: Option<String>,
    /// Language and country, as in `zh_CN.UTF-8` or `zh-CN`.
    pub locale: Option<String>,
}

impl Region {
    /// What the settings of this machine and of this process say.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        // The C library's own spelling begins with a colon; a rule such as `CST-8` names no place.
        let own = variable("TZ").map(|zone| zone.trim_start_matches(':').to_owned());
        let named =
            own.filter(|zone| zone.contains('/') || MAINLAND_CHINA.contains(&zone.as_str()));
        Self {
            time_zone: named.or_else(|| iana_time_zone::get_timezone().ok()),
            locale: ["LC_ALL", "LC_MESSAGES", "LANG"]
                .into_iter()
                .find_map(variable),
        }
    }

    /// Whether it is in mainland China: by its time zone, and by its locale only when no zone is known.
    #[must_use]
    pub fn is_mainland_china(&self) -> bool {
        match &self.time_zone {
            Some(zone) => MAINLAND_CHINA.contains(&zone.as_str()),
            None => self.locale.as_deref().is_some_and(|locale| {
                let name = locale.split(['.', '@']).next().unwrap_or_default();
                let mut parts = name.split(['_', '-']);
                let is = |part: Option<&str>, wanted: &str| {
                    part.is_some_and(|part| part.eq_ignore_ascii_case(wanted))
                };
                // A script may stand between language and country: zh-Hans-CN.
                is(parts.next(), "zh") && is(parts.next_back(), "CN")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_counts_and_the_locale_only_without_one() {
        let table = [
            (Some("Asia/Shanghai"), None, true),
            (Some("PRC"), Some("en_US"), true),
            (Some("Europe/Berlin"), Some("zh_CN.UTF-8"), false),
            (Some("Asia/Taipei"), Some("zh-CN"), false),
            (None, Some("zh_CN.UTF-8"), true),
            (None, Some("zh-CN"), true),
            (None, Some("zh-Hans-CN"), true),
            (None, Some("zh_TW"), false),
            (None, Some("zh"), false),
            (None, Some("en_CN"), false),
            (None, Some("C"), false),
            (None, None, false),
        ];
        for (zone, locale, expected) in table {
            let region = Region {
                time_zone: zone.map(str::to_owned),
                locale: locale.map(str::to_owned),
            };
            assert_eq!(region.is_mainland_china(), expected, "{region:?}");
        }
    }
}
