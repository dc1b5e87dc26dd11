//! A line chart as inline SVG, with its title and legend in HTML around it.

use std::fmt::Write as _;

use super::axis::Axis;
use super::escape::Escaped;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// Width of a letter of a label on a small screen, where the letters are largest.
const LETTER: f64 = 8.8;

/// A chart.
#[derive(Debug)]
pub struct Chart<'a> {
    /// What it shows, with the unit of its vertical axis.
    pub title: &'a str,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// Lines, each with its legend.
    pub series: Vec<Series<'a>>,
    /// Straight lines with a word.
    pub marks: Vec<Mark>,
    /// Ranges of x that do not count.
    pub shades: Vec<(f64, f64)>,
}

/// A line of a chart.
#[derive(Debug)]
pub struct Series<'a> {
    /// In the legend.
    pub name: &'a str,
    /// Colour and dash: `s1` to `s4` of the style sheet.
    pub class: &'static str,
    /// Points from left to right; the line is broken at `None`.
    pub points: Vec<Option<(f64, f64)>>,
    /// Points are drawn as dots as well; those without neighbours always are.
    pub dots: bool,
}

/// A straight line at a value of one axis.
#[derive(Clone, Debug)]
pub enum Mark {
    /// Upright, at a value of x.
    AtX(f64, String),
    /// Level, at a value of y.
    AtY(f64, String),
}

impl Chart<'_> {
    /// The chart as a `<figure>`.
    pub fn figure(&self) -> String {
        let title = Escaped(self.title);
        if self.series.iter().all(|series| series.points.iter().all(Option::is_none)) {
            return format!(
                "<figure><figcaption>{title}</figcaption>\
                 <p class=\"none\">Nothing was measured.</p></figure>\n"
            );
        }
        let mut out = format!("<figure><figcaption>{title}</figcaption>\n");
        self.legend(&mut out);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        self.shaded(&mut out);
        self.axes(&mut out);
        self.lines(&mut out);
        self.marked(&mut out);
        out.push_str("</svg></figure>\n");
        out
    }

    fn legend(&self, out: &mut String) {
        out.push_str("<ul class=\"legend\">");
        for series in self.series.iter().filter(|series| !series.name.is_empty()) {
            let _ = write!(
                out,
                "<li><svg viewBox=\"0 0 22 8\" aria-hidden=\"true\">\
                 <path class=\"line {}\" d=\"M1 4H21\"/></svg>{}</li>",
                series.class,
                Escaped(series.name),
            );
        }
        if !self.shades.is_empty() {
            out.push_str("<li><i class=\"cut\"></i>warm-up and cool-down, left out</li>");
        }
        out.push_str("</ul>\n");
    }

    fn shaded(&self, out: &mut String) {
        for (from, to) in &self.shades {
            let (x0, x1) = (self.at_x(*from), self.at_x(*to));
            let _ = write!(
                out,
                "<rect class=\"cut\" x=\"{x0:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x1 - x0,
                HEIGHT - TOP - BOTTOM,
            );
        }
    }

    fn axes(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (place, label) in self.y.ticks() {
            let y = bottom - place * (bottom - TOP);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                y + 4.0,
            );
        }
        let mut free_from = 0.0;
        for (place, label) in self.x.ticks() {
            let x = LEFT + place * (right - LEFT);
            let _ = write!(out, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>");
            let width = label.chars().count() as f64 * LETTER;
            let x_text = x.min(WIDTH - width / 2.0);
            if x_text - width / 2.0 < free_from {
                continue;
            }
            free_from = x_text + width / 2.0 + LETTER;
            let _ = write!(
                out,
                "<text x=\"{x_text:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                bottom + 16.0,
            );
        }
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" class=\"axis\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 6.0,
            Escaped(self.x.title),
        );
    }

    fn lines(&self, out: &mut String) {
        for series in &self.series {
            let mut path = String::new();
            let mut dots = String::new();
            let mut pen_down = false;
            for (place, point) in series.points.iter().enumerate() {
                let Some((x, y)) = point else {
                    pen_down = false;
                    continue;
                };
                let (x, y) = (self.at_x(*x), self.at_y(*y));
                let command = if pen_down { 'L' } else { 'M' };
                let _ = write!(path, "{command}{x:.1} {y:.1}");
                let ends_here = series.points.get(place + 1).is_none_or(Option::is_none);
                if series.dots || (!pen_down && ends_here) {
                    let _ = write!(dots, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
                }
                pen_down = true;
            }
            let _ = write!(
                out,
                "<g class=\"{0}\"><path class=\"line {0}\" d=\"{path}\"/>{dots}<title>{1}</title></g>",
                series.class,
                Escaped(series.name),
            );
        }
    }

    fn marked(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for mark in &self.marks {
            let (path, x, y, anchor, word) = match mark {
                Mark::AtX(at, word) if self.x.covers(*at) => {
                    let x = self.at_x(*at);
                    let (x_text, anchor) =
                        if x > WIDTH * 0.6 { (x - 5.0, "end") } else { (x + 5.0, "start") };
                    (format!("M{x:.1} {TOP}V{bottom}"), x_text, bottom - 8.0, anchor, word)
                }
                Mark::AtY(at, word) if self.y.covers(*at) => {
                    let y = self.at_y(*at);
                    let y_text = if y < TOP + 16.0 { y + 14.0 } else { y - 5.0 };
                    (format!("M{LEFT} {y:.1}H{right}"), right - 4.0, y_text, "end", word)
                }
                Mark::AtX(..) | Mark::AtY(..) => continue,
            };
            let _ = write!(
                out,
                "<path class=\"mark\" d=\"{path}\"/><text class=\"mark\" x=\"{x:.1}\" y=\"{y:.1}\" \
                 text-anchor=\"{anchor}\">{}</text>",
                Escaped(word),
            );
        }
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - RIGHT - LEFT)
    }

    fn at_y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - BOTTOM - TOP)
    }
}
