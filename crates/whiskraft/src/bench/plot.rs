//! Line plots as SVG text, self-contained: no script, no font, no picture from elsewhere.

use std::fmt::Write as _;

/// Size of a plot, in units of its own.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// Room around the lines, for labels.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;
/// Marks on a linear axis, about.
const MARKS: f64 = 6.0;
/// Colours of lines, taken in turn; told apart by people who see few colours, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// How values become places on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero on.
    Linear,
    /// Powers of ten are equally far apart; values must be above zero.
    Log,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// What it shows.
    pub(super) label: &'static str,
    /// Its scale.
    pub(super) scale: Scale,
    /// Text of a mark.
    pub(super) mark: fn(f64) -> String,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Its name.
    pub(super) name: String,
    /// Its points, from left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    /// What it shows.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// Part of the horizontal axis that is shaded, up to here.
    pub(super) shaded_to: Option<f64>,
}

/// An axis with the values it spans.
struct Span {
    axis: Axis,
    from: f64,
    to: f64,
}

impl Span {
    fn of(axis: Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        let max = values.clone().fold(f64::MIN, f64::max);
        let (from, to) = match axis.scale {
            Scale::Linear => (0.0, if max > 0.0 { max } else { 1.0 }),
            Scale::Log => {
                let min = values.filter(|value| *value > 0.0).fold(f64::MAX, f64::min);
                let (from, to) = if min <= max { (min, max) } else { (1.0, 10.0) };
                (10_f64.powf(from.log10().floor()), 10_f64.powf(to.log10().ceil()))
            }
        };
        // An axis that spans nothing has no places.
        let to = if to > from { to } else { from * 10.0 };
        Self { axis, from, to }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.axis.scale {
            Scale::Linear => value / self.to,
            Scale::Log => {
                let value = value.max(self.from);
                (value / self.from).log10() / (self.to / self.from).log10()
            }
        }
    }

    fn marks(&self) -> Vec<f64> {
        let steps = |step: f64, count: f64| (0..=count.floor() as u32).map(move |n| step * f64::from(n));
        match self.axis.scale {
            Scale::Linear => {
                let step = round_step(self.to / MARKS);
                steps(step, self.to / step).collect()
            }
            Scale::Log => {
                let decades = (self.to / self.from).log10().round();
                steps(1.0, decades)
                    .map(|decade| self.from * 10_f64.powf(decade))
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors
        .map(|factor| factor * power)
        .into_iter()
        .find(|round| *round >= step * 0.999)
        .unwrap_or(step)
}

impl Plot {
    /// The plot as an `svg` element.
    pub(super) fn svg(&self) -> String {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let x = Span::of(self.x, points.clone().map(|point| point.0));
        let y = Span::of(self.y, points.map(|point| point.1));
        let mut svg = String::new();
        self.draw(&mut svg, &x, &y).expect("a string takes everything");
        svg
    }

    fn draw(&self, svg: &mut String, x: &Span, y: &Span) -> std::fmt::Result {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let at_x = |value: f64| LEFT + x.place(value) * (right - LEFT);
        let at_y = |value: f64| bottom - y.place(value) * (bottom - TOP);
        write!(
            svg,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title>",
            escape(&self.title)
        )?;
        write!(
            svg,
            "<text x=\"{LEFT}\" y=\"16\" class=\"title\">{}</text>",
            escape(&self.title)
        )?;
        if let Some(to) = self.shaded_to {
            let width = at_x(to).min(right) - LEFT;
            write!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\" class=\"shade\"/>",
                bottom - TOP
            )?;
        }
        for value in x.marks() {
            let (at, text) = (at_x(value), escape(&(x.axis.mark)(value)));
            write!(svg, "<path d=\"M{at:.1} {TOP}V{bottom}\" class=\"grid\"/>")?;
            write!(
                svg,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                bottom + 15.0
            )?;
        }
        for value in y.marks() {
            let (at, text) = (at_y(value), escape(&(y.axis.mark)(value)));
            write!(svg, "<path d=\"M{LEFT} {at:.1}H{right}\" class=\"grid\"/>")?;
            write!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 6.0,
                at + 4.0
            )?;
        }
        let (middle, below) = (f64::midpoint(LEFT, right), HEIGHT - 8.0);
        write!(
            svg,
            "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            escape(x.axis.label)
        )?;
        let turned = format!(
            "transform=\"translate(14 {}) rotate(-90)\"",
            f64::midpoint(TOP, bottom)
        );
        write!(
            svg,
            "<text {turned} text-anchor=\"middle\">{}</text>",
            escape(y.axis.label)
        )?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            svg.push_str("<path d=\"");
            for (n, (at, value)) in line.points.iter().enumerate() {
                let step = if n == 0 { 'M' } else { 'L' };
                write!(svg, "{step}{:.1} {:.1}", at_x(*at), at_y(*value))?;
            }
            write!(
                svg,
                "\" class=\"line\" stroke=\"{colour}\"><title>{}</title></path>",
                escape(&line.name)
            )?;
        }
        self.legend(svg)?;
        svg.push_str("</svg>");
        Ok(())
    }

    /// Names of the lines, from right to left above them.
    fn legend(&self, svg: &mut String) -> std::fmt::Result {
        let mut end = WIDTH - RIGHT;
        let named: Vec<_> = self.lines.iter().zip(COLOURS.iter().cycle()).collect();
        for (line, colour) in named.into_iter().rev() {
            write!(
                svg,
                "<text x=\"{end}\" y=\"{}\" text-anchor=\"end\" fill=\"{colour}\" style=\"fill:{colour}\">{}</text>",
                TOP - 6.0,
                escape(&line.name)
            )?;
            // About the width of a letter at this size.
            end -= line.name.chars().count() as f64 * 6.2 + 14.0;
        }
        Ok(())
    }
}

/// A text as it may stand in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXIS: Axis = Axis {
        label: "a < b",
        scale: Scale::Linear,
        mark: |value| format!("{value}"),
    };

    #[test]
    fn marks_are_round_and_cover_the_axis() {
        let marks = |scale, values: &[f64]| Span::of(Axis { scale, ..AXIS }, values.iter().copied()).marks();
        assert_eq!(
            marks(Scale::Linear, &[3.0, 11.0]),
            [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        );
        assert_eq!(marks(Scale::Log, &[3.0, 110.0]), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(marks(Scale::Linear, &[]).len(), 6, "an empty plot has an axis");
        assert_eq!(marks(Scale::Log, &[]), [1.0, 10.0]);
        assert_eq!(marks(Scale::Log, &[10.0]), [10.0, 100.0], "one value is enough");
    }

    #[test]
    fn lines_stay_within_the_plot() {
        let plot = Plot {
            title: "x & y".to_owned(),
            x: AXIS,
            y: Axis {
                scale: Scale::Log,
                ..AXIS
            },
            lines: vec![Line {
                name: "one".to_owned(),
                points: vec![(0.0, 0.0), (2.5, 10.0), (5.0, 100.0)],
            }],
            shaded_to: Some(2.0),
        };
        let svg = plot.svg();
        assert!(svg.contains("d=\"M70.0 256.0L387.0 256.0L704.0 34.0\""), "{svg}");
        assert!(svg.contains("x &amp; y") && svg.contains("a &lt; b"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
