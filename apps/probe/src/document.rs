//! What is told: a tree of values, printed as a table and as JSON (RFC 8259).
#![forbid(unsafe_code)]

use alloc::{string::String, vec::Vec};
use core::fmt;

use kernel::println;

/// A value of the document.
pub(crate) enum Value {
    Null,
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(&'static str, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// An object: `object! { key: value, .. }`.
macro_rules! object {
    ($($key:ident: $value:expr),* $(,)?) => {
        $crate::document::Value::Object(::alloc::vec![$((stringify!($key), $value.into())),*])
    };
}
pub(crate) use object;

/// JSON without white space.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write_string(f, text),
            Self::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (key, value)) in members.iter().enumerate() {
                    write!(f, "{}\"{key}\":{value}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// A JSON string: quotes, backslashes and control characters escaped (§7).
fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(character))?,
            _ => write!(f, "{character}")?,
        }
    }
    f.write_str("\"")
}

impl Value {
    /// Prints the document for a reader: a heading for each member, a line for each thing.
    pub(crate) fn print_table(&self) {
        let Self::Object(members) = self else { return };
        for (key, value) in members {
            match value {
                Self::Object(inner) => {
                    println!("{key}");
                    inner.iter().for_each(|(key, value)| value.print_member(key));
                }
                Self::List(values) => {
                    println!("{key}{}", if values.is_empty() { ": none" } else { "" });
                    values.iter().for_each(|value| println!("  {}", Line(value)));
                }
                _ => println!("{key}: {}", Line(value)),
            }
        }
    }

    fn print_member(&self, key: &str) {
        match self {
            Self::List(values) if values.iter().any(|value| matches!(value, Self::Object(_))) => {
                println!("  {key}");
                values.iter().for_each(|value| println!("    {}", Line(value)));
            }
            _ => println!("  {key:<22}{}", Line(self)),
        }
    }
}

/// A value in one line.
struct Line<'a>(&'a Value);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("-"),
            Value::Flag(flag) => f.write_str(if *flag { "yes" } else { "no" }),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => f.write_str(text),
            Value::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { " " }, Line(value))?;
                }
                Ok(())
            }
            Value::Object(members) => {
                for (index, (key, value)) in members.iter().enumerate() {
                    match value {
                        Value::Flag(false) | Value::Null => {}
                        Value::Flag(true) => write!(f, "{}{key}", if index == 0 { "" } else { "  " })?,
                        _ if index == 0 => write!(f, "{:<22}", alloc::format!("{}", Line(value)))?,
                        _ => write!(f, "  {key} {}", Line(value))?,
                    }
                }
                Ok(())
            }
        }
    }
}
