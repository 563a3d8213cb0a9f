//! Pictures: SVG, as far as reports need it, and PNG of it.

use crate::process::run_ok;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Of texts and axes.
pub const TEXT: &str = "#1b1f24";
/// Of what is there to be looked up, not to be looked at.
pub const FAINT: &str = "#57606a";
/// Of lines behind everything.
pub const GRID: &str = "#d8dee4";

/// What a picture is called.
pub const HEADING: Font = Font {
    size: 18.0,
    bold: true,
    color: TEXT,
};
/// What belongs to its figures.
pub const BODY: Font = Font {
    size: 13.0,
    bold: false,
    color: TEXT,
};
/// What stands at its axes.
pub const SMALL: Font = Font {
    size: 12.0,
    bold: false,
    color: FAINT,
};

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

/// A text's look.
#[derive(Debug, Clone, Copy)]
pub struct Font {
    /// In pixels.
    pub size: f64,
    /// Bold.
    pub bold: bool,
    /// As in CSS.
    pub color: &'static str,
}

/// A picture under construction.
#[derive(Debug, Default)]
pub struct Svg(String);

impl Svg {
    /// A filled rectangle.
    pub fn rect(&mut self, [x, y, width, height]: [f64; 4], fill: &str, opacity: f64) {
        self.add(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}" fill-opacity="{opacity}"/>"#
        ));
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{color}" stroke-width="{width}"/>"#
        ));
    }

    /// A straight line of dashes.
    pub fn dashed(&mut self, from: (f64, f64), to: (f64, f64), color: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{color}" stroke-width="1.2" stroke-dasharray="6 4"/>"#
        ));
    }

    /// A line through points.
    pub fn polyline(&mut self, points: &[(f64, f64)], color: &str, width: f64) {
        let points = points
            .iter()
            .fold(String::new(), |text, (x, y)| text + &format!("{x:.1},{y:.1} "));
        self.add(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="{width}" stroke-linejoin="round"/>"#,
            points.trim_end()
        ));
    }

    /// A text.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, font: Font, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if font.bold { "bold" } else { "normal" };
        let Font { size, color, .. } = font;
        self.add(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{color}">{}</text>"#,
            escape(text)
        ));
    }

    /// A text from bottom to top, centred on its point.
    pub fn upright(&mut self, (x, y): (f64, f64), font: Font, text: &str) {
        let Font { size, color, .. } = font;
        self.add(format_args!(
            r#"<text transform="translate({x:.1} {y:.1}) rotate(-90)" font-size="{size}" text-anchor="middle" fill="{color}">{}</text>"#,
            escape(text)
        ));
    }

    /// The whole picture, on white.
    #[must_use]
    pub fn finish(self, width: f64, height: f64) -> String {
        let font = "DejaVu Sans, Liberation Sans, Noto Sans, sans-serif";
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
             {height}\" font-family=\"{font}\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.0
        )
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        self.0.push_str(&format!("{element}\n"));
    }
}

/// Writes `NAME.svg` and `NAME.png` into a folder. The second needs `rsvg-convert`, of Debian's librsvg2-bin.
///
/// # Errors
/// One of them cannot be written.
pub fn write(folder: &Path, name: &str, picture: String) -> Result<()> {
    let svg = folder.join(format!("{name}.svg"));
    fs::write(&svg, picture).with_context(|| format!("cannot write {}", svg.display()))?;
    run_ok(
        Command::new("rsvg-convert")
            .args(["--zoom", "1.5", "--output"])
            .arg(folder.join(format!("{name}.png")))
            .arg(&svg),
    )
    .with_context(|| format!("cannot make {name}.png of {name}.svg; rsvg-convert is in Debian's librsvg2-bin"))?;
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
