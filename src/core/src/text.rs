//! Texts of others, made fit to be shown.

/// Cuts a text to so many characters, and puts blanks for what could fake a line of a log or steer a terminal. For whatever a
/// guest, a peer, QEMU or a client has written, before it is logged, kept or printed.
#[must_use]
pub fn fit(text: &str, longest: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() || is_format(c) { ' ' } else { c })
        .take(longest)
        .collect()
}

/// Characters that turn the direction of writing or have no width.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_cannot_steer_a_terminal() {
        assert_eq!(fit("up\n\u{1b}[31mroot\u{202e}#", 256), "up  [31mroot #");
        assert_eq!(fit(&"x".repeat(5000), 256).len(), 256);
    }
}
