"""Reads topics as somebody would who knows nothing of this project: with a plain Kafka client and another language's
CloudEvents SDK. Prints one JSON line per event: topic, key, and what the SDK makes of it.

    read_topics.py BROKERS TOPIC…
"""
import json
import sys

from cloudevents.core.bindings import kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition


def main(brokers, topics):
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "foreign", "enable.auto.commit": False})
    metadata = consumer.list_topics(timeout=30).topics
    left = {}
    for topic in topics:
        for number in metadata[topic].partitions:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
            if end > 0:
                left[topic, number] = end
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in left])
    while left:
        message = consumer.poll(30)
        if message is None or message.error():
            sys.exit(f"nothing came: {message and message.error()}; left: {left}")
        place = message.topic(), message.partition()
        headers = dict(message.headers())
        event = kafka.from_kafka_event(kafka.KafkaMessage(headers=headers, key=message.key(), value=message.value()))
        print(
            json.dumps(
                {
                    "topic": message.topic(),
                    "key": message.key().decode(),
                    "binary": headers.get("ce_specversion") == b"1.0",
                    "id": event.get_id(),
                    "source": event.get_source(),
                    "type": event.get_type(),
                    "subject": event.get_subject(),
                    "time": event.get_time().isoformat(),
                    "sequence": event.get_extension("sequence"),
                    "data": event.get_data(),
                }
            )
        )
        if message.offset() + 1 >= left.get(place, 0):
            left.pop(place, None)


main(sys.argv[1], sys.argv[2:])
