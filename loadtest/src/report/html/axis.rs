//! An axis of a chart: which values it covers, where its ticks are and what they say.

/// Values of an axis and its ticks.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<f64>,
    label: fn(f64) -> String,
    /// What the values are, for example `seconds since the start`.
    pub title: &'static str,
}

/// Ticks of a linear axis, about.
const TICKS: f64 = 5.0;

/// Least value of a logarithmic axis in ms: histograms are of nanoseconds, but less than a
/// microsecond is noise.
const LOG_LEAST: f64 = 1e-3;

impl Axis {
    /// From 0 to a round value at or above `high`.
    pub fn linear(high: f64, label: fn(f64) -> String, title: &'static str) -> Self {
        let high = if high.is_finite() && high > 0.0 { high } else { 1.0 };
        let step = round_up(high / TICKS);
        let steps = (high / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=steps as u32).map(|n| f64::from(n) * step).collect();
        Self { low: 0.0, high: steps * step, log: false, ticks, label, title }
    }

    /// From 0 to exactly `high`, with ticks at round values.
    pub fn exact(high: f64, label: fn(f64) -> String, title: &'static str) -> Self {
        let mut axis = Self::linear(high, label, title);
        if high.is_finite() && high > 0.0 {
            axis.high = high;
            axis.ticks.retain(|tick| *tick <= high);
        }
        axis
    }

    /// Fractions from 0 to 1, as percentages.
    pub fn fractions(title: &'static str) -> Self {
        let label = |value: f64| format!("{:.0} %", value * 100.0);
        let ticks = vec![0.0, 0.25, 0.5, 0.75, 0.9, 1.0];
        Self { low: 0.0, high: 1.0, log: false, ticks, label, title }
    }

    /// Times in ms on a logarithmic scale, from 1, 2 or 5 times a power of ten to another.
    pub fn log_ms(low: f64, high: f64, title: &'static str) -> Self {
        let low = low.max(LOG_LEAST);
        let high = high.max(low);
        let (mut from, mut to) = (round_down(low), round_up(high));
        if to / from < 1.5 {
            from = round_down(from * 0.99);
            to = round_up(to * 1.01);
        }
        let decades = (to / from).log10();
        let multiples: &[f64] = match decades {
            d if d < 0.75 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            d if d <= 2.4 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let every = (decades / 7.0).ceil().max(1.0) as i32;
        let mut ticks = Vec::new();
        for power in (from.log10().floor() as i32)..=(to.log10().ceil() as i32) {
            for multiple in multiples {
                let tick = multiple * 10f64.powi(power);
                let covered = tick >= from * 0.999 && tick <= to * 1.001;
                if covered && power.rem_euclid(every) == 0 {
                    ticks.push(tick);
                }
            }
        }
        Self { low: from, high: to, log: true, ticks, label: tick_ms, title }
    }

    /// Where a value is, from 0 to 1; values outside are put on the edge.
    pub fn place(&self, value: f64) -> f64 {
        let place = if self.log {
            let value = value.max(LOG_LEAST);
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        place.clamp(0.0, 1.0)
    }

    /// Whether a value is on the axis.
    pub fn covers(&self, value: f64) -> bool {
        value >= self.low && value <= self.high
    }

    /// Places of the ticks with their labels.
    pub fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        self.ticks.iter().map(|tick| (self.place(*tick), (self.label)(*tick)))
    }
}

/// A number for a tick: `0`, `0.25`, `250`, `1.5k`, `2M`.
pub fn tick_number(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value.abs() {
        v if v >= 1e6 => short(value / 1e6, "M"),
        v if v >= 1e3 => short(value / 1e3, "k"),
        v if v > 0.0 && v < 0.01 => format!("{value:.4}"),
        _ => short(value, ""),
    }
}

/// Milliseconds for a tick: `200 µs`, `5 ms`, `10 s`.
pub fn tick_ms(value: f64) -> String {
    match value {
        v if v < 0.999 => format!("{} µs", tick_number((v * 1e3 * 100.0).round() / 100.0)),
        v if v < 999.0 => format!("{} ms", tick_number(v)),
        v => format!("{} s", tick_number(v / 1e3)),
    }
}

/// The next of 1, 2, 5 times a power of ten at or above a value.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let found = [1.0, 2.0, 5.0].into_iter().find(|multiple| multiple * power >= value * 0.999_999);
    found.unwrap_or(10.0) * power
}

/// The next of 1, 2, 5 times a power of ten at or below a value.
fn round_down(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let found = [5.0, 2.0].into_iter().find(|multiple| multiple * power <= value * 1.000_001);
    found.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().map(|(_, label)| label).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_cover_the_values() {
        assert_eq!(
            labels(&Axis::linear(87.0, tick_number, "")),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(labels(&Axis::linear(1.0, tick_number, ""))[1], "0.2");
        assert_eq!(labels(&Axis::linear(0.0, tick_number, "")).len(), 6);
        assert_eq!(labels(&Axis::linear(f64::NAN, tick_number, "")).len(), 6);
        assert_eq!(labels(&Axis::exact(63.0, tick_number, "")), ["0", "20", "40", "60"]);
        assert_eq!(tick_number(2_500_000.0), "2.5M");
    }

    #[test]
    fn logarithmic_ticks_say_their_unit() {
        let narrow = Axis::log_ms(4.1, 60.0, "");
        assert_eq!(labels(&narrow), ["2 ms", "5 ms", "10 ms", "20 ms", "50 ms", "100 ms"]);
        let wide = Axis::log_ms(0.02, 20_000.0, "");
        assert_eq!(labels(&wide), ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        let single = Axis::log_ms(5.0, 5.0, "");
        assert_eq!(labels(&single), ["2 ms", "3 ms", "4 ms", "5 ms", "6 ms", "8 ms", "10 ms"]);
        assert!((0.4..0.6).contains(&Axis::log_ms(0.0, 0.0, "").place(0.0)));
    }
}
