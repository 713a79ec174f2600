//! Levels of single modules: `kernel::mm=debug`.
#![forbid(unsafe_code)]

use ::log::LevelFilter;

/// Modules that can be named.
const MAX_MODULES: usize = 8;
/// Bytes of a module's path.
const MAX_PATH_BYTES: usize = 48;

/// What `log=` said.
#[derive(Debug, Default)]
pub(super) struct Filter {
    default: Option<LevelFilter>,
    modules: heapless::Vec<(heapless::String<MAX_PATH_BYTES>, LevelFilter), MAX_MODULES>,
}

impl Filter {
    /// Reads `LEVEL` and `MODULE=LEVEL`, separated by commas; hands what is neither, or too much, to `unknown`.
    pub(super) fn read(&mut self, value: &str, mut unknown: impl FnMut(&str)) {
        for word in value.split(',').filter(|word| !word.is_empty()) {
            let understood = match word.split_once('=') {
                None => word.parse().map(|level| self.default = Some(level)).is_ok(),
                Some((module, level)) => match (heapless::String::try_from(module), level.parse()) {
                    (Ok(module), Ok(level)) => self.modules.push((module, level)).is_ok(),
                    _ => false,
                },
            };
            if !understood {
                unknown(word);
            }
        }
    }

    /// The level of what is not named.
    pub(super) fn default_level(&self) -> Option<LevelFilter> {
        self.default
    }

    /// The level of a record's target: that of the longest named module it lies in; of equals, the last.
    pub(super) fn level_of(&self, target: &str) -> Option<LevelFilter> {
        let lies_in = |module: &str| {
            target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let named = self.modules.iter().filter(|(module, _)| lies_in(module));
        named.max_by_key(|(module, _)| module.len()).map(|&(_, level)| level)
    }

    /// The level of the most talkative named module.
    pub(super) fn highest(&self) -> LevelFilter {
        self.modules.iter().map(|&(_, level)| level).max().unwrap_or(LevelFilter::Off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::String, vec::Vec};

    fn filter(value: &str) -> (Filter, Vec<String>) {
        let mut filter = Filter::default();
        let mut unknown = Vec::new();
        filter.read(value, |word| unknown.push(word.into()));
        (filter, unknown)
    }

    #[test]
    fn the_longest_named_module_decides() {
        let (filter, unknown) = filter("warn,kernel=info,kernel::mm=debug,kernel::mm::heap=trace");
        assert!(unknown.is_empty());
        assert_eq!(filter.default_level(), Some(LevelFilter::Warn));
        assert_eq!(filter.highest(), LevelFilter::Trace);
        for (target, level) in [
            ("kernel::mm::heap", Some(LevelFilter::Trace)),
            ("kernel::mm::heap2", Some(LevelFilter::Debug)),
            ("kernel::mmu", Some(LevelFilter::Info)),
            ("shell", None),
        ] {
            assert_eq!(filter.level_of(target), level, "{target}");
        }
    }

    #[test]
    fn what_is_no_level_is_told_and_the_rest_holds() {
        let (filter, unknown) = filter("loud,debug,a=b,c=info,");
        assert_eq!(unknown, ["loud", "a=b"]);
        assert_eq!(filter.default_level(), Some(LevelFilter::Debug));
        assert_eq!(filter.level_of("c"), Some(LevelFilter::Info));
        let too_long = "m".repeat(MAX_PATH_BYTES + 1) + "=info";
        assert_eq!(self::filter(&too_long).1, [too_long]);
    }
}
