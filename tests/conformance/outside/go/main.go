// Outside judges written in Go: golang.org/x/mod/sumdb (the Go checksum database) and transparency-dev.
//
// Usage: judge sumdb|transparency-dev. One claim a line of JSON on standard input, one verdict a line on standard
// output: "ok", "refused: why" or "unsupported". All code that judges is theirs; this file only hands over.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	tdlog "github.com/transparency-dev/formats/log"
	tdnote "github.com/transparency-dev/formats/note"
	tdproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// claim is one thing to be judged; byte fields are base64.
type claim struct {
	Kind     string   `json:"kind"`
	Folder   string   `json:"folder"`
	Note     []byte   `json:"note"`
	Text     []byte   `json:"text"`
	VKey     string   `json:"vkey"`
	Witness  string   `json:"witness"`
	Leaf     []byte   `json:"leaf"`
	Index    uint64   `json:"index"`
	TreeSize uint64   `json:"tree_size"`
	Root     []byte   `json:"root"`
	OldSize  uint64   `json:"old_size"`
	OldRoot  []byte   `json:"old_root"`
	Proof    [][]byte `json:"proof"`
}

var errUnsupported = errors.New("unsupported")

func main() {
	judges := map[string]func(claim) error{"sumdb": sumdb, "transparency-dev": transparencyDev}
	judge, known := judges[os.Args[1]]
	if !known {
		fmt.Fprintln(os.Stderr, "unknown judge")
		os.Exit(2)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var c claim
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		switch err := judge(c); {
		case err == nil:
			fmt.Println("ok")
		case errors.Is(err, errUnsupported):
			fmt.Println("unsupported")
		default:
			fmt.Println("refused: " + strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
}

func sumdb(c claim) error {
	switch c.Kind {
	case "inclusion":
		hashes, root, err := hashesOf(c.Proof, c.Root)
		if err != nil {
			return err
		}
		return tlog.CheckRecord(hashes, int64(c.TreeSize), root, int64(c.Index), tlog.RecordHash(c.Leaf))
	case "consistency":
		hashes, root, err := hashesOf(c.Proof, c.Root)
		if err != nil {
			return err
		}
		_, oldRoot, err := hashesOf(nil, c.OldRoot)
		if err != nil {
			return err
		}
		return tlog.CheckTree(hashes, int64(c.TreeSize), root, int64(c.OldSize), oldRoot)
	case "checkpoint":
		_, err := sumdbOpen(c.Note, c.VKey)
		return err
	case "tiles":
		return sumdbTiles(c)
	}
	return errUnsupported
}

func hashesOf(proof [][]byte, root []byte) ([]tlog.Hash, tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(proof))
	for i, each := range append(proof, root) {
		if len(each) != tlog.HashSize {
			return nil, tlog.Hash{}, errors.New("hash of another length")
		}
		if i < len(proof) {
			copy(hashes[i][:], each)
		}
	}
	return hashes, tlog.Hash(root), nil
}

// sumdbOpen verifies the note; its own tree format has another first line, so the body is read by transparency-dev.
func sumdbOpen(msg []byte, vkey string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(msg, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	var cp tdlog.Checkpoint
	if rest, err := cp.Unmarshal([]byte(opened.Text)); err != nil || len(rest) > 0 {
		return tlog.Tree{}, fmt.Errorf("checkpoint body: %v, %d bytes over", err, len(rest))
	}
	if len(cp.Hash) != tlog.HashSize {
		return tlog.Tree{}, errors.New("root of another length")
	}
	return tlog.Tree{N: int64(cp.Size), Hash: tlog.Hash(cp.Hash)}, nil
}

// folder reads tiles where C2SP puts them: as sumdb does, but without the tile height in the path.
type folder string

func (f folder) Height() int { return 8 }

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(string(f), strings.Replace(tile.Path(), "tile/8/", "tile/", 1)))
		if err != nil {
			return nil, err
		}
		read[i] = data
	}
	return read, nil
}

// sumdbTiles takes every entry of the folder through the tiles up to the signed root. Each path is checked once more
// by CheckRecord, since TileHashReader leaves some full tiles unchecked when the tree's peaks share a tile.
func sumdbTiles(c claim) error {
	msg, err := os.ReadFile(filepath.Join(c.Folder, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := sumdbOpen(msg, c.VKey)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, folder(c.Folder))
	for first := int64(0); first < tree.N; first += 256 {
		entries, err := readBundle(c.Folder, first/256, min(256, tree.N-first))
		if err != nil {
			return err
		}
		for i, entry := range entries {
			index := first + int64(i)
			path, err := tlog.ProveRecord(tree.N, index, reader)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
	}
	return nil
}

func readBundle(folder string, index, width int64) ([][]byte, error) {
	tile := tlog.Tile{H: 8, L: -1, N: index, W: int(width)}
	path := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(folder, path))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New("bundle is cut short")
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries, data = append(entries, data[2:end]), data[end:]
	}
	if int64(len(entries)) != width {
		return nil, fmt.Errorf("%d entries in a bundle of %d", len(entries), width)
	}
	return entries, nil
}

func transparencyDev(c claim) error {
	hasher := rfc6962.DefaultHasher
	switch c.Kind {
	case "inclusion":
		return proof.VerifyInclusion(hasher, c.Index, c.TreeSize, hasher.HashLeaf(c.Leaf), c.Proof, c.Root)
	case "consistency":
		return proof.VerifyConsistency(hasher, c.OldSize, c.TreeSize, c.Proof, c.OldRoot, c.Root)
	case "checkpoint":
		_, err := transparencyDevOpen(c.Note, c.VKey, "")
		return err
	case "cosignature":
		_, err := transparencyDevOpen(c.Note, c.VKey, c.Witness)
		return err
	case "proof":
		var p tdproof.TLogProof
		if err := p.Unmarshal(c.Text); err != nil {
			return err
		}
		cp, err := transparencyDevOpen(p.Checkpoint, c.VKey, c.Witness)
		if err != nil {
			return err
		}
		hashes := make([][]byte, len(p.Hashes))
		for i := range p.Hashes {
			hashes[i] = p.Hashes[i][:]
		}
		return proof.VerifyInclusion(hasher, p.Index, cp.Size, hasher.HashLeaf(c.Leaf), hashes, cp.Hash)
	}
	return errUnsupported
}

func transparencyDevOpen(msg []byte, vkey, witness string) (*tdlog.Checkpoint, error) {
	verifier, err := tdnote.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	var others []note.Verifier
	if witness != "" {
		cosigner, err := tdnote.NewVerifierForCosignatureV1(witness)
		if err != nil {
			return nil, err
		}
		others = append(others, cosigner)
	}
	cp, rest, signed, err := tdlog.ParseCheckpoint(msg, verifier.Name(), verifier, others...)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 || len(signed.Sigs) != 1+len(others) {
		return nil, fmt.Errorf("%d signatures that hold, %d bytes over", len(signed.Sigs), len(rest))
	}
	return cp, nil
}
