//! From numbers to the text that Prometheus reads.

use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::{Histogram, Kind, Metric};

/// What the text is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Collects families in order and encodes them.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    families: Vec<MetricFamily>,
}

impl Exposition {
    /// A metric with one series per row: label values and number.
    pub(crate) fn rows<V: AsRef<str>>(
        &mut self,
        metric: Metric,
        rows: impl IntoIterator<Item = (Vec<V>, f64)>,
    ) {
        let series = rows.into_iter().map(|(values, number)| {
            let mut series = proto::Metric::from_label(labels(metric, &values));
            match metric.kind {
                Kind::Counter => {
                    let mut counter = proto::Counter::default();
                    counter.set_value(number);
                    series.set_counter(counter);
                }
                Kind::Gauge | Kind::Histogram => {
                    let mut gauge = proto::Gauge::default();
                    gauge.set_value(number);
                    series.set_gauge(gauge);
                }
            }
            series
        });
        let series = series.collect();
        self.push(metric, series);
    }

    /// A metric without labels.
    pub(crate) fn one(&mut self, metric: Metric, number: f64) {
        self.rows::<&str>(metric, [(Vec::new(), number)]);
    }

    /// A metric with one label.
    pub(crate) fn by<V: AsRef<str>>(&mut self, metric: Metric, rows: impl IntoIterator<Item = (V, f64)>) {
        self.rows(
            metric,
            rows.into_iter().map(|(value, number)| (vec![value], number)),
        );
    }

    /// A histogram without labels.
    pub(crate) fn histogram(&mut self, metric: Metric, histogram: &Histogram) {
        let (buckets, count, sum) = histogram.snapshot();
        let bucket = |(bound, cumulative)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        };
        let mut value = proto::Histogram::default();
        value.set_bucket(buckets.into_iter().map(bucket).collect());
        value.set_sample_count(count);
        value.set_sample_sum(sum);
        let mut series = proto::Metric::from_label(Vec::new());
        series.set_histogram(value);
        self.push(metric, vec![series]);
    }

    /// A family without series says nothing and is left out.
    fn push(&mut self, metric: Metric, series: Vec<proto::Metric>) {
        if series.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(metric.name.to_owned());
        family.set_help(metric.help.to_owned());
        family.set_field_type(match metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(series);
        self.families.push(family);
    }

    /// The text.
    ///
    /// # Errors
    /// Says what the encoder does not like; a mistake in this crate.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.families, &mut text)?;
        Ok(text)
    }
}

fn labels<V: AsRef<str>>(metric: Metric, values: &[V]) -> Vec<LabelPair> {
    let pair = |(name, value): (&&'static str, &V)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.as_ref().to_owned());
        pair
    };
    metric.labels.iter().zip(values).map(pair).collect()
}
