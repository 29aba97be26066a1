//! dev only
use kubestrap_sim::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let s = scenario::by_name(&a[1]).unwrap();
    if a.len() > 3 && a[3] == "all" {
        for l in tell(a[2].parse().unwrap(), &s) {
            println!("{l}");
        }
        return;
    }
    let t = std::time::Instant::now();
    let n: u64 = a[2].parse().unwrap();
    if a.len() > 3 {
        match run_seed(n, &s) {
            Ok(x) => println!("{x:?}"),
            Err(v) => println!("{v}"),
        }
        return;
    }
    let c = campaign(&s, 0..n, 2);
    println!("{} {} seeds {} events {:.0} h {:?} in {:?}", s.name, c.seeds, c.events, c.hours, c.counts, t.elapsed());
    if let Some(v) = c.violation {
        println!("{v}");
    }
}
