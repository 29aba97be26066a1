mod adapters;

fn main() {}
