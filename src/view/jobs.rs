//! What runs now, in words and in JSON (DECIDE).

use super::{
    rows::{SCHEMA, count, sanitised},
    snapshot::{JobPlace, JobRow},
    table::{Column, numbers, table, words},
    time,
};
use serde_json::{Value, json};

const COLUMNS: &[Column] = &[words("WHERE"), numbers("TIME"), words("FILE")];

/// What runs, the oldest first. `shown` is how a path reads to the person who asks.
#[must_use]
pub fn list(jobs: &[JobRow], shown: impl Fn(&[u8]) -> String) -> String {
    if jobs.is_empty() {
        return "nothing runs\n".to_owned();
    }
    let row = |job: &JobRow| {
        let file = if job.name.is_empty() { "-".to_owned() } else { sanitised(&shown(&job.name)) };
        let time = if job.place == JobPlace::Waits { "-".to_owned() } else { time::seconds(job.ms * 1000) };
        vec![place(&job.place), time, file]
    };
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    let among = |is: fn(&JobPlace) -> bool| jobs.iter().filter(|job| is(&job.place)).count() as u64;
    let there = among(|place| matches!(place, JobPlace::There(_)));
    let here = among(|place| *place == JobPlace::Here);
    let wait = among(|place| *place == JobPlace::Waits);
    let others = among(|place| matches!(place, JobPlace::For(_)));
    let sum = format!("{there} elsewhere, {here} here, {wait} waiting; {} for other machines", count(others, "job"));
    format!("{}{sum}\n", table(COLUMNS, &rows))
}

fn place(place: &JobPlace) -> String {
    match place {
        JobPlace::Here => "here".to_owned(),
        JobPlace::There(name) => sanitised(name),
        JobPlace::Waits => "waits".to_owned(),
        JobPlace::For(name) => format!("here, for {}", sanitised(name)),
    }
}

/// The same for programs.
#[must_use]
pub fn json(jobs: &[JobRow]) -> Vec<Value> {
    let row = |job: &JobRow| {
        let (state, machine) = match &job.place {
            JobPlace::Here => ("here", None),
            JobPlace::There(name) => ("elsewhere", Some(name)),
            JobPlace::Waits => ("waits", None),
            JobPlace::For(name) => ("for", Some(name)),
        };
        json!({ "file": String::from_utf8_lossy(&job.name), "state": state, "machine": machine, "ms": job.ms })
    };
    jobs.iter().map(row).collect()
}

/// How much a build should start, and what runs.
#[must_use]
pub fn answer(jobs: &[JobRow], local: u32, mesh: u32) -> Value {
    json!({
        "schema": SCHEMA,
        "jobs": mesh,
        "local": local,
        "remote": mesh.saturating_sub(local),
        "running": json(jobs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_listed_with_where_they_run_and_for_how_long() {
        let job = |name: &str, place, ms| JobRow { name: name.into(), place, ms };
        let jobs = [
            job("/p/a.c", JobPlace::There("tower".into()), 4_200),
            job("/p/b.c", JobPlace::Here, 900),
            job("", JobPlace::For("evil\u{1b}[2J".into()), 800),
            job("/p/c.c", JobPlace::Waits, 0),
        ];
        let text = list(&jobs, |path| String::from_utf8_lossy(path).replace("/p/", ""));
        insta::assert_snapshot!(text, @r"
        WHERE                 TIME  FILE
        tower               4.20 s  a.c
        here                0.90 s  b.c
        here, for evil?[2J  0.80 s  -
        waits                    -  c.c
        1 elsewhere, 1 here, 1 waiting; 1 job for other machines
        ");
        assert_eq!(list(&[], |_| String::new()), "nothing runs\n");
        let json = answer(&jobs, 2, 9);
        assert_eq!((&json["remote"], &json["running"][0]["machine"]), (&7.into(), &"tower".into()));
        assert_eq!(json["running"][3]["state"], "waits");
    }
}
