# syntax=docker/dockerfile:1
# beanstalkd, of Debian: docker build -t beanstalkd - < deploy/docker/beanstalkd.Dockerfile
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends beanstalkd=1.12-* \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=10002 --group=10002 --mode=0700 /data
USER 10002:10002
EXPOSE 11300
STOPSIGNAL SIGTERM
ENTRYPOINT ["beanstalkd"]
CMD ["-b", "/data", "-f", "50"]
