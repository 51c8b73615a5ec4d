# What CI runs.
ci:
    ./test

# Formatting, lints and the workspace's own tests.
quick:
    ./test --quick

# The gateway with everything on and nothing to configure.
dev:
    cargo run -p fanwire -- dev

fmt:
    cargo fmt --all

# Layers, licences, sources.
deny:
    ./test deny

# Fan-out and memory, on two cores, against the raw limit of the machine.
bench:
    cargo build --release -p fanwire -p fanwire-loadtest
    cargo run --release -p fanwire-loadtest -- fanout
    cargo run --release -p fanwire-loadtest -- idle
