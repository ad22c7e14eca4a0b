"""Celery's side of bench/peers.py: the task, for the sender and for the workers. For many short tasks its guide asks
for a large prefetch multiplier; results, events, gossip and mingling are off."""

import os

from celery import Celery
from talk import Tally

app = Celery("celery_app", broker=os.environ["BENCH_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
tally = Tally(os.environ["BENCH_TALLY"])


@app.task
def noop(payload):
    tally.add(payload["t"])
