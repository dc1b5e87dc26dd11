//! `weir usage`: what tenants have used, from the ledger, also while a server writes it.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};
use crate::config::{UsageFormat, UsageRequest};
use crate::gate::budget::{Budgets, DayUse};
use crate::gate::calendar::{Day, Utc};
use crate::gate::ledger::{FileStorage, Replayed, replay};

const HEAD: [&str; 7] = [
    "tenant",
    "date",
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "charged_tokens",
];

/// Prints what was asked for on standard output.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
#[allow(clippy::print_stdout, reason = "the report is the answer of the command")]
pub fn run(request: &UsageRequest) -> Result<()> {
    let folder = request.state_dir.as_ref().context(
        "no folder is known in which a ledger could lie: name the server's with --state-dir",
    )?;
    let log = FileStorage::read_beside(folder).with_context(|| {
        format!(
            "no ledger can be read in {}; a server keeps one where --state-dir says, or when a \
             tenant has a budget",
            folder.display()
        )
    })?;
    print!("{}", report(&replay(&log)?, request, SystemClock::new().unix_s()));
    Ok(())
}

/// The report as text. `unix_s` names the present windows.
fn report(replayed: &Replayed, request: &UsageRequest, unix_s: u64) -> String {
    let budgets = &replayed.budgets;
    let is_wanted = |tenant: &str| request.tenant.as_deref().is_none_or(|name| name == tenant);
    let mut tenants: Vec<&str> =
        budgets.tenants().map(|tenant| &**tenant).filter(|tenant| is_wanted(tenant)).collect();
    tenants.sort_unstable();
    let since = Day(request.since_day.unwrap_or(0));
    match request.format {
        UsageFormat::Json => {
            let of = |tenant: &&str| in_json(budgets, tenant, since, unix_s);
            let as_of = json!({
                "sequence": replayed.next_sequence,
                "time": Utc(replayed.unix_s).to_string(),
            });
            let tenants: Vec<Value> = tenants.iter().map(of).collect();
            format!("{:#}\n", json!({ "as_of": as_of, "tenants": tenants }))
        }
        UsageFormat::Csv => {
            let rows = rows(budgets, &tenants, since);
            let rows = rows.iter().map(|row| row.each_ref().map(|cell| quoted(cell)));
            let head = std::iter::once(HEAD.map(str::to_owned));
            head.chain(rows).map(|row| row.join(",") + "\r\n").collect()
        }
        UsageFormat::Table => table(&rows(budgets, &tenants, since)),
    }
}

fn rows(budgets: &Budgets, tenants: &[&str], since: Day) -> Vec<[String; 7]> {
    let of = |tenant: &&str| {
        let tenant = (*tenant).to_owned();
        let days = budgets.days(&tenant).filter(|(day, _)| *day >= since);
        days.map(|(day, used)| cells(&tenant, &day.to_string(), used)).collect::<Vec<_>>()
    };
    tenants.iter().flat_map(of).collect()
}

fn cells(tenant: &str, date: &str, used: &DayUse) -> [String; 7] {
    let DayUse { requests, prompt_tokens, cached_tokens, output_tokens, charged_tokens } = used;
    [
        tenant.to_owned(),
        date.to_owned(),
        requests.to_string(),
        prompt_tokens.to_string(),
        cached_tokens.to_string(),
        output_tokens.to_string(),
        charged_tokens.to_string(),
    ]
}

fn in_json(budgets: &Budgets, tenant: &str, since: Day, unix_s: u64) -> Value {
    let day = |(day, used): (Day, &DayUse)| {
        json!({
            "date": day.to_string(),
            "requests": used.requests,
            "prompt_tokens": used.prompt_tokens,
            "cached_tokens": used.cached_tokens,
            "output_tokens": used.output_tokens,
            "charged_tokens": used.charged_tokens,
        })
    };
    let windows = budgets.balances(tenant, unix_s).map(|balance| {
        json!({
            "window": balance.window.name(),
            "starts_at": Utc(balance.start).to_string(),
            "resets_at": Utc(balance.window.end(balance.start)).to_string(),
            "used": balance.settled,
            "held": balance.held,
        })
    });
    let days: Vec<Value> = budgets.days(tenant).filter(|(day, _)| *day >= since).map(day).collect();
    json!({ "tenant": tenant, "windows": windows, "days": days })
}

/// As RFC 4180 has it.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Names to the left, numbers to the right, and the sum of all.
fn table(rows: &[[String; 7]]) -> String {
    let mut sum = [0u64; 7];
    for row in rows {
        for (sum, cell) in sum.iter_mut().zip(row).skip(2) {
            *sum = sum.saturating_add(cell.parse().unwrap_or(0));
        }
    }
    let mut last = sum.map(|sum| sum.to_string());
    (last[0], last[1]) = ("all".to_owned(), String::new());
    let head = HEAD.map(|name| name.replace("_tokens", "").to_uppercase());
    let all: Vec<&[String; 7]> =
        std::iter::once(&head).chain(rows).chain(std::iter::once(&last)).collect();
    let width = |at: usize| all.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for row in all {
        let [tenant, date, ..] = widths;
        let _ = write!(text, "{:<tenant$}  {:<date$}", row[0], row[1]);
        for (cell, width) in row.iter().zip(widths).skip(2) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LedgerLimits, TenantSettings};
    use crate::gate::Used;
    use crate::gate::budget::WorstCase;
    use crate::gate::ledger::{DiskFaults, Ledger, SimDisk};

    const DAY_S: u64 = 86_400;

    /// Two tenants, one of them over two days.
    fn replayed() -> Replayed {
        let disk = SimDisk::new(1, DiskFaults::default());
        let limits = LedgerLimits::default();
        let (ledger, _) = Ledger::open(Box::new(disk.clone()), limits, 0).expect("a new disk");
        for (name, day, output_tokens) in [("zoo", 1, 5), ("a,b", 1, 7), ("zoo", 2, 11)] {
            let tenant = TenantSettings { name: name.into(), ..TenantSettings::default() };
            let worst = [WorstCase { prompt_tokens: 10, output_tokens: 100 }];
            let hold = ledger.hold(&tenant, &worst, day * DAY_S).expect("no limit")[0];
            ledger.settle(hold, Used { prompt_tokens: 10, cached_tokens: 4, output_tokens });
        }
        ledger.commit(2 * DAY_S).expect("the disk is well");
        replay(&disk.bytes()).expect("it is whole")
    }

    fn told(format: UsageFormat, tenant: Option<&str>, since_day: Option<u32>) -> String {
        let tenant = tenant.map(str::to_owned);
        let request = UsageRequest { state_dir: None, tenant, since_day, format };
        report(&replayed(), &request, 2 * DAY_S)
    }

    #[test]
    fn usage_is_a_table_for_people() {
        let expected = "\
TENANT  DATE        REQUESTS  PROMPT  CACHED  OUTPUT  CHARGED
a,b     1970-01-02         1      10       4       7       17
zoo     1970-01-02         1      10       4       5       15
zoo     1970-01-03         1      10       4      11       21
all                        3      30      12      23       53
";
        assert_eq!(told(UsageFormat::Table, None, None), expected);
    }

    #[test]
    fn usage_is_csv_for_accounts() {
        let expected = "tenant,date,requests,prompt_tokens,cached_tokens,output_tokens,\
                        charged_tokens\r\n\"a,b\",1970-01-02,1,10,4,7,17\r\n";
        assert_eq!(told(UsageFormat::Csv, Some("a,b"), None), expected);
        let since = told(UsageFormat::Csv, Some("zoo"), Some(2));
        assert!(since.ends_with("\r\nzoo,1970-01-03,1,10,4,11,21\r\n"), "{since}");
        assert_eq!(since.lines().count(), 2);
    }

    #[test]
    fn usage_is_json_with_the_present_windows() {
        let told: Value =
            serde_json::from_str(&told(UsageFormat::Json, Some("zoo"), None)).expect("JSON");
        assert_eq!(told["as_of"]["time"], "1970-01-03T00:00:00Z");
        let zoo = &told["tenants"][0];
        assert_eq!(zoo["days"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            (&zoo["windows"][1]["used"], &zoo["windows"][2]["used"]),
            (&json!(21), &json!(36))
        );
    }
}
