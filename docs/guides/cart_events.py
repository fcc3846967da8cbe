"""Prints the events of carts from the journal, with the proto file and no code of millrace.

    pip install confluent-kafka==2.16.1 grpcio-tools==1.76.0
    python3 cart_events.py BROKERS TOPIC INCLUDE... PROTO

INCLUDE are folders in which imports are found, PROTO is the file with the messages, as others
import it. It reads each partition to its end and stops.
"""

import pathlib
import sys
import tempfile

import confluent_kafka
import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc


def messages(includes, proto):
    """Compiles a proto file and returns a function from the name of a message to its class."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "set"
        own = pathlib.Path(grpc_tools.__file__).parent / "_proto"  # google/protobuf/*.proto
        paths = [f"-I{path}" for path in [*includes, own]]
        if protoc.main(["protoc", *paths, "--include_imports", f"--descriptor_set_out={out}", proto]):
            sys.exit(f"{proto} does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def records(brokers, topic):
    """Returns the records of all partitions up to their ends."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": brokers, "group.id": "cart-events", "enable.auto.commit": False,
        "enable.partition.eof": True,
    })
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    beginning = confluent_kafka.OFFSET_BEGINNING
    consumer.assign([confluent_kafka.TopicPartition(topic, p, beginning) for p in partitions])
    left = len(partitions)
    while left:
        record = consumer.poll(30)
        if record is None:
            sys.exit("the broker did not answer within 30 s")
        if record.error():
            if record.error().code() != confluent_kafka.KafkaError._PARTITION_EOF:
                raise confluent_kafka.KafkaException(record.error())
            left -= 1
            continue
        yield record
    consumer.close()


def main(brokers, topic, *includes, proto):
    message = messages(includes, proto)
    for record in records(brokers, topic):
        name = dict(record.headers() or []).get("type")
        if name is None:
            continue  # no event and no value: skip it
        event = message(name.decode()).FromString(record.value())
        text = json_format.MessageToJson(event, indent=None, preserving_proto_field_name=True)
        print(record.key().decode(), name.decode(), text)


main(*sys.argv[1:-1], proto=sys.argv[-1])
