#!/bin/sh
# Makes the topics of the route in deploy/gate/countersign.toml, with the settings of docs/operations.md.
set -eu

create() {
    topic=$1
    shift
    /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$BOOTSTRAP" --create --if-not-exists \
        --partitions 4 --replication-factor 1 --topic "$topic" "$@"
}

create payments.commands --config message.timestamp.type=LogAppendTime --config cleanup.policy=delete
create payments.authorized --config message.timestamp.type=LogAppendTime --config max.message.bytes=1114124
create payments.denied --config retention.ms=2592000000 --config max.message.bytes=1114124
create payments.audit --config cleanup.policy=delete --config retention.ms=31536000000
