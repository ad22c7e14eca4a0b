// River's side of bench/peers.py: jobs that do nothing, on PostgreSQL. It has no steps.
//
// "fill N" inserts N at once, "drain N" works them off until each is durably completed, "low N" is N of them, 27 a second.
// 2,000 workers and a fetch each 2 ms: by default it has fewer and fetches each 100 ms, which costs it throughput.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	workersMax  = 2000
	cooldown    = 2 * time.Millisecond
	poll        = 20 * time.Millisecond
	pause       = 37 * time.Millisecond
	patience    = 120 * time.Second
	connections = 20
)

type Args struct {
	T    int64  `json:"t"`
	Note string `json:"note"`
}

func (Args) Kind() string { return "noop" }

var (
	ended atomic.Int64
	lock  sync.Mutex
	late  []float64
)

type Worker struct{ river.WorkerDefaults[Args] }

func (w *Worker) Work(ctx context.Context, job *river.Job[Args]) error {
	if job.Args.Note == "" {
		lock.Lock()
		late = append(late, float64(time.Now().UnixMicro()-job.Args.T)/1e3)
		lock.Unlock()
	}
	ended.Add(1)
	return nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say(found map[string]any) { must(json.NewEncoder(os.Stdout).Encode(found)) }

func client(pool *pgxpool.Pool) *river.Client[pgx.Tx] {
	workers := river.NewWorkers()
	river.AddWorker(workers, &Worker{})
	made, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown: cooldown, FetchPollInterval: poll, Workers: workers,
		Queues: map[string]river.QueueConfig{"default": {MaxWorkers: workersMax}},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	must(err)
	return made
}

func fill(ctx context.Context, pool *pgxpool.Pool, count int) {
	_, err := pool.Exec(ctx, "truncate river_job")
	must(err)
	c := client(pool)
	for at := 0; at < count; at += 1000 {
		rows := make([]river.InsertManyParams, min(1000, count-at))
		for i := range rows {
			rows[i] = river.InsertManyParams{Args: Args{time.Now().UnixMicro(), strings.Repeat("x", 120)}}
		}
		_, err := c.InsertManyFast(ctx, rows)
		must(err)
	}
	_, err = pool.Exec(ctx, "vacuum analyze river_job")
	must(err)
	say(map[string]any{"runs": count})
}

func drain(ctx context.Context, pool *pgxpool.Pool, count int) {
	c, begin := client(pool), time.Now()
	before := ended.Load()
	must(c.Start(ctx))
	for ended.Load() < before+int64(count) && time.Since(begin) < patience {
		time.Sleep(5 * time.Millisecond)
	}
	for left := 1; left > 0 && time.Since(begin) < patience; {
		must(pool.QueryRow(ctx, "select count(*) from river_job where state <> 'completed'").Scan(&left))
		if left > 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	say(map[string]any{"runs": count, "seconds": time.Since(begin).Seconds()})
	must(c.Stop(ctx))
}

func low(ctx context.Context, pool *pgxpool.Pool, count int) {
	c := client(pool)
	must(c.Start(ctx))
	late = nil
	for n := 0; n < count; n++ {
		_, err := c.Insert(ctx, Args{time.Now().UnixMicro(), ""}, nil)
		must(err)
		time.Sleep(pause)
	}
	time.Sleep(time.Second)
	must(c.Stop(ctx))
	sort.Float64s(late)
	say(map[string]any{"p50_ms": late[len(late)/2], "p99_ms": late[len(late)*99/100]})
}

func main() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(os.Getenv("BENCH_DSN"))
	must(err)
	config.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	must(err)
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	must(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	must(err)
	say(map[string]any{"settings": fmt.Sprintf("%d workers, a fetch each %s, %d connections, inserted 1,000 at a time",
		workersMax, cooldown, connections)})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var word string
		var count int
		_, err := fmt.Sscan(lines.Text(), &word, &count)
		must(err)
		map[string]func(context.Context, *pgxpool.Pool, int){"fill": fill, "drain": drain, "low": low}[word](ctx, pool, count)
	}
}
