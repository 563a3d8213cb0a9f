//! Mutations that keep what they touch readable, so that more than the first check is reached: whole lines, values within
//! a JSON message, elements and attributes of an XML. Each gives `None` where the input has no such thing, or in every other
//! case by the seed's choice; the fuzzer then does what it does to bytes.

use serde_json::{Value, json};
use std::ops::Range;

/// Dice from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap_or(1)).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() {
            return None;
        }
        from.get(self.below(from.len()))
    }
}

/// Puts the result where libFuzzer wants it. `None` where it does not fit.
fn put(data: &mut [u8], max_size: usize, new: &[u8]) -> Option<usize> {
    if new.len() > max_size {
        return None;
    }
    data.get_mut(..new.len())?.copy_from_slice(new);
    Some(new.len())
}

/// Lines of text: one goes, comes twice, changes its place, or a value in it becomes another's.
pub fn lines(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> Option<usize> {
    let mut dice = Dice(u64::from(seed));
    if dice.below(2) == 0 {
        return None;
    }
    let text = data.get(..size)?.to_vec();
    let mut lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    shuffle(&mut lines, &mut dice);
    put(data, max_size, &lines.join(&b'\n'))
}

fn shuffle<T: Clone>(lines: &mut Vec<T>, dice: &mut Dice) {
    let (at, to) = (dice.below(lines.len().max(1)), dice.below(lines.len() + 1));
    let Some(line) = lines.get(at).cloned() else { return };
    match dice.below(3) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(to, line),
        _ => {
            lines.remove(at);
            lines.insert(to.min(lines.len()), line);
        }
    }
}

/// Lines of JSON: as [`lines`], or within one a value becomes another, goes, or is one of its neighbours'.
pub fn messages(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> Option<usize> {
    let mut dice = Dice(u64::from(seed));
    let text = data.get(..size)?.to_vec();
    let mut lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    match dice.below(4) {
        0 => return None,
        1 => shuffle(&mut lines, &mut dice),
        _ => {
            let readable = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).ok();
            let readable: Vec<(usize, Value)> = lines
                .iter()
                .enumerate()
                .filter_map(|(at, line)| Some((at, readable(line)?)))
                .filter(|(_, value)| value.is_object())
                .collect();
            let (at, mut value) = dice.pick(&readable)?.clone();
            change(&mut value, &mut dice);
            *lines.get_mut(at)? = serde_json::to_vec(&value).ok()?;
        }
    }
    put(data, max_size, &lines.join(&b'\n'))
}

/// Goes down to some value, and makes it another.
fn change(value: &mut Value, dice: &mut Dice) {
    let further = dice.below(4) != 0;
    match value {
        Value::Object(map) if further && !map.is_empty() => {
            let at = dice.below(map.len());
            let keys: Vec<String> = map.keys().cloned().collect();
            let Some(key) = keys.get(at) else { return };
            match dice.below(6) {
                0 => drop(map.remove(key)),
                1 => {
                    let other = dice.pick(&keys).cloned().unwrap_or_default();
                    let copy = map.get(key).cloned().unwrap_or_default();
                    map.insert(other, copy);
                }
                _ => {
                    if let Some(inner) = map.get_mut(key) {
                        change(inner, dice);
                    }
                }
            }
        }
        Value::Array(list) if further && !list.is_empty() => {
            if dice.below(3) == 0 {
                shuffle(list, dice);
            } else {
                let at = dice.below(list.len());
                if let Some(inner) = list.get_mut(at) {
                    change(inner, dice);
                }
            }
        }
        other => *other = some_value(dice),
    }
}

fn some_value(dice: &mut Dice) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(2),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(65536),
        json!(1e300),
        json!(""),
        json!("\u{1b}[2J\u{202e}"),
        json!("x".repeat(300)),
        json!("52:54:00:aa:00:01"),
        json!("52:54:00:aa:00:02"),
        json!("ff:ff:ff:ff:ff:ff"),
        json!("a2a2a2a2-0000-4000-8000-000000000002"),
        json!("10GE"),
        json!("node1.example.org:16515"),
        json!("prefer"),
        json!("setup"),
        json!("active"),
        json!("hbvf525400aa0001"),
        json!([]),
        json!({}),
        json!([[[[[[[[[[]]]]]]]]]]),
    ];
    dice.pick(&values).cloned().unwrap_or_default()
}

/// An XML: one element goes, comes twice, stands where another stood, or in another; or an attribute's value or a text
/// becomes another.
pub fn elements(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> Option<usize> {
    let mut dice = Dice(u64::from(seed));
    if dice.below(3) == 0 {
        return None;
    }
    let text = std::str::from_utf8(data.get(..size)?).ok()?.to_owned();
    let document = roxmltree::Document::parse(&text).ok()?;
    let nodes: Vec<Range<usize>> = document
        .root_element()
        .descendants()
        .skip(1)
        .filter(|n| n.is_element() || n.is_comment())
        .map(|n| n.range())
        .collect();
    let values: Vec<Range<usize>> = document
        .descendants()
        .flat_map(|n| n.attributes().map(|a| a.range_value()).collect::<Vec<_>>())
        .collect();
    let mut new = text.clone();
    match dice.below(6) {
        0 => new.replace_range(dice.pick(&nodes)?.clone(), ""),
        1 => {
            let copied = text.get(dice.pick(&nodes)?.clone())?;
            new.insert_str(dice.pick(&nodes)?.start, copied);
        }
        2 => {
            let copied = text.get(dice.pick(&nodes)?.clone())?;
            new.replace_range(dice.pick(&nodes)?.clone(), copied);
        }
        3 => {
            const WORDS: [&str; 6] = ["\n  ", "<!-- </x> -->", "<![CDATA[]]>", "text", "&#13;", "\u{a0}"];
            new.insert_str(dice.pick(&nodes)?.start, dice.pick(&WORDS)?);
        }
        _ => {
            const WORDS: [&str; 16] = [
                "",
                "virtio",
                "direct",
                "network",
                "ethernet",
                "hostdev",
                "52:54:00:aa:00:01",
                "52:54:00:aa:00:02",
                "hb525400aa0001",
                "no",
                "require",
                "0x1c",
                "urn:hybond:domain:1",
                "&lt;&apos;&quot;>",
                "a&#10;b",
                "enp1s0f0",
            ];
            let word = if dice.below(3) == 0 {
                text.get(dice.pick(&values)?.clone())?
            } else {
                dice.pick(&WORDS)?
            };
            new.replace_range(dice.pick(&values)?.clone(), word);
        }
    }
    put(data, max_size, new.as_bytes())
}
