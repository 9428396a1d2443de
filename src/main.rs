//! tmp
fn main() {
    use cachalot::settings::*;
    let s = Settings::load(&Sources {
        file: std::env::args().nth(1).map(Into::into),
        environment: std::env::vars().collect(),
        flags: Flags::default(),
    })
    .unwrap_or_else(|p| {
        eprintln!("{p}");
        std::process::exit(2)
    });
    if let Err(e) = cachalot::app::run(&s) {
        eprintln!("{e}: {:?}", std::error::Error::source(&e));
        std::process::exit(1)
    }
}
