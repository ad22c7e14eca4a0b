"""Apache Kafka as the journal of a cluster, behind the same seam as the local log (decision 0010).

``producer`` takes records, ``topic`` watches what an ack of the topic is worth. ``partitions`` reads them all for the
router: ``reader`` and ``stream`` one of them, ``feed`` fetches, ``lookout`` asks whether it does. ``fault`` says what
Kafka's errors mean to us. Only this package, and the lab, import its driver.
What joins it with the local log, so that an outage stops nothing, is in ``journal/spool``.
"""

from seawall.journal.kafka.client import Client
from seawall.journal.kafka.partitions import Partitions
from seawall.journal.kafka.producer import KafkaLog
from seawall.journal.kafka.topic import TopicWatch
from seawall.journal.topic import Topic

__all__ = ["Client", "KafkaLog", "Partitions", "Topic", "TopicWatch"]
