// Command merkle roots 2^20 leaves of 97 bytes with transparency-dev/merkle, as a rival of the row rfc6962_root.
// It prints one line of JSON: seconds of each round, and the root, which must be ours.
package main

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
)

const leafBytes = 97

var factory = &compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}

// rangeOf appends the leaves from begin to end, which both are multiples of a power of two.
func rangeOf(leaves []byte, begin, end int) (*compact.Range, error) {
	made := factory.NewEmptyRange(uint64(begin))
	for index := begin; index < end; index++ {
		hash := rfc6962.DefaultHasher.HashLeaf(leaves[index*leafBytes : (index+1)*leafBytes])
		if err := made.Append(hash, nil); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func root(leaves []byte, count, threads int) ([]byte, error) {
	parts := make([]*compact.Range, threads)
	faults := make([]error, threads)
	var running sync.WaitGroup
	for part := range threads {
		running.Add(1)
		go func() {
			defer running.Done()
			parts[part], faults[part] = rangeOf(leaves, count*part/threads, count*(part+1)/threads)
		}()
	}
	running.Wait()
	whole := factory.NewEmptyRange(0)
	for part := range threads {
		if faults[part] != nil {
			return nil, faults[part]
		}
		if err := whole.AppendRange(parts[part], nil); err != nil {
			return nil, err
		}
	}
	return whole.GetRootHash(nil)
}

func main() {
	count := flag.Int("count", 1<<20, "leaves, a power of two")
	rounds := flag.Int("rounds", 5, "rounds")
	threads := flag.Int("threads", 1, "threads, 1 or 2")
	flag.Parse()
	runtime.GOMAXPROCS(*threads)
	leaves := make([]byte, *count*leafBytes)
	for at := range leaves {
		leaves[at] = byte(at % 251)
	}
	var found []byte
	seconds := make([]float64, *rounds)
	for round := range seconds {
		start := time.Now()
		made, err := root(leaves, *count, *threads)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		seconds[round] = time.Since(start).Seconds()
		found = made
	}
	told := map[string]any{"seconds": seconds, "root": hex.EncodeToString(found), "go": runtime.Version()}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		os.Exit(1)
	}
}
