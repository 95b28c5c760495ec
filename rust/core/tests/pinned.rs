//! Reads `tests/vectors/formats.toml`: sections of `key = value` lines, which is all that file uses.

/// The value of `key` in `[section]`, without quotes.
pub fn pinned(section: &str, key: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/formats.toml");
    let text = std::fs::read_to_string(path).expect("tests/vectors/formats.toml is part of the tree");
    let heading = format!("[{section}]");
    text.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches('"').to_owned())
        .unwrap_or_else(|| panic!("[{section}] has no {key}"))
}
