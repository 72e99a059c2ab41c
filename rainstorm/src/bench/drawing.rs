//! Lines as SVG. Written by hand, since the libraries that draw know neither the reader's dark screen nor what a title
//! is for, and need fonts to do it well. Coordinates have one decimal, so that what was measured again differs in few
//! places from what was there.

use std::fmt::{self, Write};

use super::report::{Axis, Plot, Series};

const WIDTH: f64 = 760.0;
/// Of the area with the lines.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 52.0;
/// From the area to the legend: ticks, and the name of the axis.
const BELOW: f64 = 64.0;
const LEGEND_LINE: f64 = 22.0;
/// About so wide is a letter.
const LETTER: f64 = 7.0;
/// Series have different colours up to here, and begin again with the first one then.
const COLOURS: usize = 8;
/// With more points than these, dots would hide the line.
const DOTS: usize = 40;

/// Light and dark after the reader's own wish; the ground is drawn, so it never stands on somebody else's.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-size:16px;font-weight:600}.ground{fill:#fff}\
.grid{stroke:#d8dee4}.line{fill:none;stroke-width:2}.model{stroke-dasharray:6 4}\
.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}\
.c4{stroke:#cf222e}.c5{stroke:#0f7b83}.c6{stroke:#9a6700}.c7{stroke:#57606a}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.grid{stroke:#30363d}\
.c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}\
.c4{stroke:#ff7b72}.c5{stroke:#39c5cf}.c6{stroke:#d29922}.c7{stroke:#8b949e}}";

/// One axis, and where its values lie.
struct Scale {
    logarithmic: bool,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
    /// Where `from` and `to` are drawn.
    drawn: (f64, f64),
}

impl Scale {
    fn of(axis: &Axis, values: impl Iterator<Item = f64>, drawn: (f64, f64), ticks: f64) -> Self {
        let values = values.filter(|value| can_stand(axis, *value));
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        // Nothing to draw is drawn as well, as an empty frame.
        let (least, most) = if least <= most { (least, most) } else { (1.0, 10.0) };
        let (from, to, ticks) =
            if axis.logarithmic { decades(least, most) } else { steps(least.min(0.0), most.max(0.0), ticks) };
        Self { logarithmic: axis.logarithmic, from, to, ticks, drawn }
    }

    fn at(&self, value: f64) -> f64 {
        let place = |value: f64| if self.logarithmic { value.log10() } else { value };
        let share = (place(value) - place(self.from)) / (place(self.to) - place(self.from));
        self.drawn.0 + share * (self.drawn.1 - self.drawn.0)
    }
}

/// No logarithm has a place for zero.
fn can_stand(axis: &Axis, value: f64) -> bool {
    value.is_finite() && (!axis.logarithmic || value > 0.0)
}

/// Ticks at multiples of 1, 2 or 5, about as many as are asked for.
fn steps(least: f64, most: f64, about: f64) -> (f64, f64, Vec<f64>) {
    let span = if most > least { most - least } else { 1.0 };
    let magnitude = 10f64.powf((span / about).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * magnitude).find(|step| span / step <= about);
    let step = step.unwrap_or(span);
    let (first, last) = ((least / step).floor(), ((least + span) / step).ceil());
    let ticks = std::iter::successors(Some(first), |tick| (*tick < last).then_some(tick + 1.0));
    (first * step, last * step, ticks.map(|tick| tick * step).collect())
}

/// Ticks at powers of ten; where there are few of them, at their double and fivefold, too.
fn decades(least: f64, most: f64) -> (f64, f64, Vec<f64>) {
    let first = least.log10().floor();
    let last = most.log10().ceil().max(first + 1.0);
    let powers = std::iter::successors(Some(first), |power| (*power < last).then_some(power + 1.0));
    let few: &[f64] = if last - first > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let ticks = powers.flat_map(|power| few.iter().map(move |factor| factor * 10f64.powf(power)));
    let (from, to) = (10f64.powf(first), 10f64.powf(last));
    (from, to, ticks.filter(|tick| *tick <= to * 1.001).collect())
}

/// The plot as a whole SVG document.
pub fn svg(plot: &Plot) -> String {
    let mut text = String::new();
    // Nothing that is written to memory fails.
    let _ = draw(&mut text, plot);
    text
}

fn draw(to: &mut String, plot: &Plot) -> fmt::Result {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let x = Scale::of(&plot.x, points().map(|point| point.0), (LEFT, WIDTH - RIGHT), 9.0);
    let y = Scale::of(&plot.y, points().map(|point| point.1), (TOP + HEIGHT, TOP), 6.0);
    let (legend, lines) = legend(&plot.series);
    let height = TOP + HEIGHT + BELOW + lines * LEGEND_LINE;
    let id = escaped(&plot.id);
    let title = escaped(&plot.title);
    let names: Vec<_> = plot.series.iter().map(|series| series.name.as_str()).collect();
    let about = format!("{} over {}: {}", named(&plot.y), named(&plot.x), names.join("; "));
    writeln!(
        to,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-about\">\n\
         <title id=\"{id}-title\">{title}</title>\n<desc id=\"{id}-about\">{}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">{title}</text>",
        escaped(&about),
    )?;
    let (bottom, right, middle) = (TOP + HEIGHT, WIDTH - RIGHT, TOP + HEIGHT / 2.0);
    for tick in &x.ticks {
        let (at, below, tick) = (x.at(*tick), bottom + 20.0, label(*tick));
        writeln!(to, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>")?;
        writeln!(to, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{tick}</text>")?;
    }
    for tick in &y.ticks {
        let (at, left, tick) = (y.at(*tick), LEFT - 8.0, label(*tick));
        writeln!(to, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>")?;
        writeln!(to, "<text x=\"{left}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", at + 4.0)?;
    }
    let (center, below) = (f64::midpoint(LEFT, right), bottom + 42.0);
    writeln!(to, "<text x=\"{center}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", escaped(&named(&plot.x)))?;
    let turned = format!("transform=\"rotate(-90 18 {middle})\" text-anchor=\"middle\"");
    writeln!(to, "<text x=\"18\" y=\"{middle}\" {turned}>{}</text>", escaped(&named(&plot.y)))?;

    for (number, (series, (across, line))) in plot.series.iter().zip(legend).enumerate() {
        let class = format!("line c{}{}", number % COLOURS, if series.model { " model" } else { "" });
        let stand = |point: &&(f64, f64)| can_stand(&plot.x, point.0) && can_stand(&plot.y, point.1);
        let drawn = series.points.iter().filter(stand).map(|point| (x.at(point.0), y.at(point.1)));
        let drawn: Vec<_> = drawn.map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let name = escaped(&series.name);
        writeln!(to, "<g class=\"{class}\"><title>{name}</title>")?;
        if !drawn.is_empty() {
            writeln!(to, "<path d=\"M{}\"/>", drawn.join("L"))?;
        }
        if !series.model && drawn.len() <= DOTS {
            // A line of no length with round ends is a dot in the line's own colour.
            let dots: String = drawn.iter().map(|point| format!("M{point}h0")).collect();
            writeln!(to, "<path stroke-width=\"7\" stroke-linecap=\"round\" d=\"{dots}\"/>")?;
        }
        let height = bottom + BELOW + line * LEGEND_LINE;
        writeln!(to, "<path d=\"M{across:.1} {height}h26\"/></g>")?;
        writeln!(to, "<text x=\"{:.1}\" y=\"{}\">{name}</text>", across + 34.0, height + 4.0)?;
    }
    writeln!(to, "</svg>")
}

/// Where each series stands in the legend (across, and in which line), and how many lines that takes.
fn legend(series: &[Series]) -> (Vec<(f64, f64)>, f64) {
    let (mut across, mut line) = (LEFT, 0.0);
    let mut places = Vec::new();
    for series in series {
        #[allow(clippy::cast_precision_loss, reason = "a name is short")]
        let width = 34.0 + series.name.chars().count() as f64 * LETTER + 22.0;
        if across > LEFT && across + width > WIDTH {
            (across, line) = (LEFT, line + 1.0);
        }
        places.push((across, line));
        across += width;
    }
    (places, line + 1.0)
}

fn named(axis: &Axis) -> String {
    let kind = if axis.logarithmic { ", logarithmic" } else { "" };
    match axis.unit.as_str() {
        "" => format!("{}{kind}", axis.name),
        unit => format!("{} ({unit}{kind})", axis.name),
    }
}

/// A tick's number, without the noise of its last binary digits.
fn label(tick: f64) -> String {
    let rounded = |value: f64| format!("{:.3}", value).trim_end_matches('0').trim_end_matches('.').to_owned();
    match tick.abs() {
        millions if millions >= 1e6 => format!("{} M", rounded(tick / 1e6)),
        thousands if thousands >= 1e4 => format!("{} k", rounded(tick / 1e3)),
        tiny if tiny < 1e-3 && tiny > 0.0 => format!("{tick:.0e}"),
        _ => rounded(tick),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::report::Part, *};

    /// A series: its name, whether it is a model, its points.
    type Drawn<'a> = (&'a str, bool, &'a [(f64, f64)]);

    fn plot(logarithmic: bool, series: &[Drawn]) -> Plot {
        let axis = |name: &str, unit: &str| Axis { name: name.to_owned(), unit: unit.to_owned(), logarithmic };
        let series = series.iter().map(|(name, model, points)| Series {
            name: (*name).to_owned(),
            model: *model,
            points: points.to_vec(),
        });
        Plot {
            part: Part::Growth,
            id: "plot".to_owned(),
            title: "Orders & <partitions>".to_owned(),
            x: axis("partitions", ""),
            y: axis("completed", "orders/s"),
            series: series.collect(),
        }
    }

    /// Every tag is closed, in order, and every `&` and quote is one that may be there.
    #[track_caller]
    fn is_well_formed(text: &str) {
        let mut open = Vec::new();
        let mut rest = text;
        while let Some((before, tag)) = rest.split_once('<') {
            assert!(!before.contains('>'), "{before}");
            let (tag, behind) = tag.split_once('>').expect("a tag that ends");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{text}"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().expect("a name")),
            }
            rest = behind;
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
        for part in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|name| part.starts_with(name)), "{part}");
        }
    }

    /// All numbers that are drawn.
    fn coordinates(text: &str) -> Vec<f64> {
        let paths = text.split(" d=\"").skip(1).filter_map(|path| path.split('"').next());
        let numbers = paths.flat_map(|path| path.split(|c: char| !"-.0123456789infNa".contains(c)));
        numbers.filter(|number| !number.is_empty()).map(|number| number.parse().expect("a number")).collect()
    }

    #[test]
    fn a_drawing_is_xml_and_has_every_series() {
        let drawn =
            svg(&plot(false, &[("measured \"here\"", false, &[(1.0, 2.0), (4.0, 8.0)]), ("a line", true, &[])]));
        is_well_formed(&drawn);
        for expected in ["measured &quot;here&quot;</text>", "a line</text>", "completed (orders/s)</text>"] {
            assert_eq!(drawn.matches(expected).count(), 1, "{expected} in {drawn}");
        }
        assert!(drawn.contains("role=\"img\"") && drawn.contains("Orders &amp; &lt;partitions&gt;</title>"), "{drawn}");
    }

    #[test]
    fn only_a_model_is_dashed() {
        let drawn = svg(&plot(false, &[("measured", false, &[(1.0, 2.0)]), ("model", true, &[(1.0, 2.0)])]));
        assert!(drawn.contains("<g class=\"line c0\"><title>measured"), "{drawn}");
        assert!(drawn.contains("<g class=\"line c1 model\"><title>model"), "{drawn}");
    }

    #[test]
    fn a_logarithmic_axis_never_gets_a_zero() {
        let drawn = svg(&plot(true, &[("measured", false, &[(0.0, 5.0), (1.0, 0.0), (1.0, 0.05), (1000.0, 70.0)])]));
        let outside = coordinates(&drawn).into_iter().find(|number| !(0.0..=WIDTH).contains(number));
        assert_eq!(outside, None, "{drawn}");
        // Of four points two are left.
        assert!(drawn.contains("<path d=\"M76.0 ") && drawn.matches("h0").count() == 2, "{drawn}");
    }

    #[test]
    fn whatever_is_measured_lies_inside() {
        for logarithmic in [false, true] {
            for points in [&[][..], &[(0.0, 0.0)], &[(3.0, 3.0), (3.0, 3.0)], &[(1e-7, 3e9), (2e9, 4e-7)]] {
                let drawn = svg(&plot(logarithmic, &[("measured", false, points)]));
                let outside = coordinates(&drawn).into_iter().find(|number| !(0.0..=WIDTH).contains(number));
                assert_eq!(outside, None, "{points:?}: {drawn}");
            }
        }
    }

    #[test]
    fn ticks_are_numbers_that_people_use() {
        assert_eq!(steps(0.0, 17.3, 6.0), (0.0, 20.0, vec![0.0, 5.0, 10.0, 15.0, 20.0]));
        let labels: Vec<_> = decades(0.3, 40.0).2.into_iter().map(label).collect();
        assert_eq!(labels, ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]);
        assert_eq!([1234.0, 25_000.0, 1_500_000.0, 0.000_05].map(label), ["1234", "25 k", "1.5 M", "5e-5"]);
    }
}
