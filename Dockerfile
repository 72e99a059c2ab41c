# syntax=docker/dockerfile:1
# One image with every program of Rainstorm: `docker run IMAGE order-service` starts a service, `docker run IMAGE
# rainstorm …` the command line. They are one file under six names, beside glibc and CA certificates; there is no shell,
# and nobody is root.

FROM rust:1.95-bookworm AS tools
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /rainstorm

# What there is to build, without the sources: it changes only when a dependency does …
FROM tools AS recipe
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# … so this layer, which takes most of the time, is kept until then.
FROM tools AS build
COPY --from=recipe /rainstorm/recipe.json recipe.json
RUN cargo chef cook --release --locked --package rainstorm --features tls --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --package rainstorm --features tls \
 && mkdir /programs \
 && cp target/release/rainstorm /programs/rainstorm \
 && ln -s rainstorm /programs/order-service \
 && ln -s rainstorm /programs/payment-service \
 && ln -s rainstorm /programs/kitchen-service \
 && ln -s rainstorm /programs/delivery-service \
 && ln -s rainstorm /programs/query-service

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Rainstorm" \
      org.opencontainers.image.description="A food-delivery system of five event-sourced services that never call each other" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /programs/ /usr/local/bin/
# `nonroot` in numbers, so that Kubernetes can see that it isn't root.
USER 65532:65532
ENV PORT=8080
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whatever runs in here answers on $PORT; what ends by itself (a storm, an audit) ends before it is asked.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=6 CMD ["rainstorm", "healthy"]
CMD ["rainstorm", "--help"]
