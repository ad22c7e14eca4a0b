"""Dramatiq's side of bench/peers.py: the actor, for the sender and for the workers."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from talk import Tally

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))
tally = Tally(os.environ["BENCH_TALLY"])


@dramatiq.actor(max_retries=3)
def noop(payload):
    tally.add(payload["t"])
