package embedded

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"os"
	"path/filepath"
	"slices"

	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/flow"
)

// The index of a block is a file beside it, with the block's rows in an order and an encoding in which few of them can be read.
// It has nothing that the block does not have: one that is missing or damaged is made again.
//
//	magic
//	pages: pageRows rows each, those of the same connection and client together; a CRC of each after it
//	sections, each with a CRC after it: pageEnds words addresses postings hashes rollup
//	footer: where each section begins and ends, numbers, CRC, length, magic
const (
	indexMagic = "orb8ix02"
	// pageRows is how many rows are read to have one of them.
	pageRows = 16
	// maxPages is how many can be told apart in a hash entry.
	pageBits = 20
	maxPages = 1 << pageBits
	// bucketEntries is how many entries of the hash table share a bucket, on average.
	bucketEntries = 8
)

// Sections of an index.
const (
	sectionPages = iota
	sectionPageEnds
	sectionWords
	sectionAddresses
	sectionPostings
	sectionHashes
	sectionRollup
	sections
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sameFlow is the same for all rows of one direction of a flow, wherever they are seen with the same addresses.
func (t *tuple) sameFlow() uint64 {
	ports := uint64(t.sourcePort)<<48 | uint64(t.destinationPort)<<32 | uint64(t.transport)<<16 | uint64(t.icmpType)<<8 | uint64(t.icmpCode)
	a := mix(binary.LittleEndian.Uint64(t.source[:]), binary.LittleEndian.Uint64(t.source[8:]))
	b := mix(binary.LittleEndian.Uint64(t.destination[:]), binary.LittleEndian.Uint64(t.destination[8:]))
	return mix(a+ports, bits.RotateLeft64(b, 31))
}

// sameConnection is the same for all rows of a TCP connection whose handshake was seen, whatever addresses they have.
func sameConnection(isns uint64) uint64 { return mix(isns, 0x9e3779b97f4a7c15) }

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xa0761d6478bd642f, b^0xe7037ed1a0b428db)
	return hi ^ lo
}

// client returns the address by which rows are ordered: that of who opened the connection, or sent where nobody knows who did.
func (r *row) client() *[16]byte {
	if r.initiator == flow.InitiatorDestination {
		return &r.destination
	}
	return &r.source
}

// compareRows is the order of an index.
func compareRows(a, b *row, aFlow, bFlow uint64) int {
	if c := slices.Compare(a.client()[:], b.client()[:]); c != 0 {
		return c
	}
	switch {
	case aFlow != bFlow:
		if aFlow < bFlow {
			return -1
		}
		return 1
	case a.start != b.start:
		if a.start < b.start {
			return -1
		}
		return 1
	case a.end != b.end:
		if a.end < b.end {
			return -1
		}
		return 1
	}
	return 0
}

// indexWriter writes an index.
type indexWriter struct {
	path  string
	file  *os.File
	out   *bufio.Writer
	at    uint64
	words words
	count uint64

	page      pageWriter
	pageEnds  []byte
	addresses map[[16]byte]uint32
	order     [][16]byte
	// postings are the pages of each identity, then of each address.
	identityPages, addressPages []posting
	hashes                      []uint64
	pageHashes                  []uint64
	rollup                      *rollup
	// pause is called after every few rows.
	pause func()
}

// posting is a growing list of pages.
type posting struct {
	last uint32
	list []byte
}

func (p *posting) add(page uint32) {
	if len(p.list) > 0 && p.last == page {
		return
	}
	delta := page - p.last
	if len(p.list) == 0 {
		delta = page
	}
	p.list, p.last = binary.AppendUvarint(p.list, uint64(delta)), page
}

// newIndexWriter begins an index whose rows have these words.
func newIndexWriter(path string, w words, pause func()) (*indexWriter, error) {
	file, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	x := &indexWriter{
		path: path, file: file, out: bufio.NewWriterSize(file, 256<<10), words: w,
		addresses: map[[16]byte]uint32{}, identityPages: make([]posting, len(w.identities)), rollup: newRollup(w),
		pause: pause,
	}
	x.write([]byte(indexMagic))
	return x, nil
}

func (x *indexWriter) write(b []byte) {
	// The writer keeps its first error for Flush.
	_, _ = x.out.Write(b)
	x.at += uint64(len(b))
}

// checked writes bytes with a CRC after them.
func (x *indexWriter) checked(b []byte) {
	x.write(b)
	x.write(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)))
}

// add appends a row, whose words are those of the index. Rows come in their order.
func (x *indexWriter) add(r *row, h *health, sameFlow uint64) {
	page := uint32(x.count / pageRows)
	source, destination := x.address(r.source, page), x.address(r.destination, page)
	x.identityPages[r.sourceID].add(page)
	x.identityPages[r.destinationID].add(page)
	x.pageHashes = append(x.pageHashes, sameFlow)
	if h != nil && h.isns != 0 {
		x.pageHashes = append(x.pageHashes, sameConnection(h.isns))
	}
	x.page.put(r, h, source, destination)
	x.rollup.add(r, h, sameFlow)
	if x.count++; x.count%pageRows == 0 {
		x.endPage(page)
	}
	if x.count%batchRows == 0 {
		x.pause()
	}
}

func (x *indexWriter) address(a [16]byte, page uint32) uint32 {
	id, known := x.addresses[a]
	if !known {
		id = uint32(len(x.order))
		x.addresses[a] = id
		x.order = append(x.order, a)
		x.addressPages = append(x.addressPages, posting{})
	}
	x.addressPages[id].add(page)
	return id
}

func (x *indexWriter) endPage(page uint32) {
	x.checked(x.page.buf)
	x.page = pageWriter{buf: x.page.buf[:0]}
	x.pageEnds = binary.LittleEndian.AppendUint64(x.pageEnds, x.at)
	slices.Sort(x.pageHashes)
	for _, h := range slices.Compact(x.pageHashes) {
		// The upper bits choose the bucket, those below them are kept.
		x.hashes = append(x.hashes, h&^(maxPages-1)|uint64(page))
	}
	x.pageHashes = x.pageHashes[:0]
}

// abort removes what was written.
func (x *indexWriter) abort() error {
	return errors.Join(x.file.Close(), os.Remove(x.path+".tmp"))
}

// finish writes what follows the pages, and gives the file its name when all of it is on the disk.
func (x *indexWriter) finish() error {
	if err := x.complete(); err != nil {
		return errors.Join(err, x.abort())
	}
	if err := x.file.Close(); err != nil {
		return err
	}
	return errors.Join(os.Rename(x.path+".tmp", x.path), block.SyncDirectory(filepath.Dir(x.path)))
}

func (x *indexWriter) complete() error {
	if x.count%pageRows != 0 {
		x.endPage(uint32(x.count / pageRows))
	}
	if x.count > maxPages*pageRows {
		return fmt.Errorf("cannot index %d rows: %d are the most", x.count, maxPages*pageRows)
	}
	ends := [sections]uint64{sectionPages: x.at}
	section := func(at int, b []byte) {
		x.checked(b)
		ends[at] = x.at
	}
	section(sectionPageEnds, x.pageEnds)
	packed, err := (&zstd.Codec{Level: zstd.SpeedFastest, Concurrency: 1}).Encode(nil, encodeWords(&x.words))
	if err != nil {
		return err
	}
	section(sectionWords, packed)
	var addresses []byte
	for _, a := range x.order {
		addresses = append(addresses, a[:]...)
	}
	section(sectionAddresses, addresses)
	section(sectionPostings, encodePostings(append(x.identityPages, x.addressPages...)))
	section(sectionHashes, encodeHashes(x.hashes))
	section(sectionRollup, x.rollup.encode())
	var footer []byte
	for _, end := range ends {
		footer = binary.LittleEndian.AppendUint64(footer, end)
	}
	footer = binary.LittleEndian.AppendUint64(footer, x.count)
	x.checked(footer)
	x.write([]byte(indexMagic))
	return errors.Join(x.out.Flush(), x.file.Sync())
}

// encodePostings writes where each list ends, and the lists.
func encodePostings(all []posting) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(all)))
	var end uint32
	for i := range all {
		end += uint32(len(all[i].list))
		b = binary.LittleEndian.AppendUint32(b, end)
	}
	for i := range all {
		b = append(b, all[i].list...)
	}
	return b
}

// encodeHashes writes a table: the number of bits that choose a bucket, where each bucket ends, and the entries, which are the bits
// below those and the page.
func encodeHashes(hashes []uint64) []byte {
	slices.Sort(hashes)
	width := max(bits.Len(uint(len(hashes)/bucketEntries)), 1)
	b := binary.LittleEndian.AppendUint32(nil, uint32(width))
	at := 0
	for bucket := range 1 << width {
		for at < len(hashes) && int(hashes[at]>>(64-width)) == bucket {
			at++
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(at))
	}
	for _, h := range hashes {
		b = binary.LittleEndian.AppendUint32(b, hashEntry(h, width)|uint32(h&(maxPages-1)))
	}
	return b
}

// hashEntry returns the part of a hash that an entry keeps.
func hashEntry(h uint64, width int) uint32 {
	return uint32(h<<width>>(32+pageBits)) << pageBits
}

func encodeWords(w *words) []byte {
	var b []byte
	ids := map[string]uint64{}
	b = binary.AppendUvarint(b, uint64(len(w.strings)))
	for i, s := range w.strings {
		ids[s] = uint64(i)
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(len(w.identities)))
	for i := range w.identities {
		who := &w.identities[i]
		b = binary.AppendUvarint(b, who.CgroupID)
		b = binary.AppendUvarint(b, uint64(who.PID))
		for _, s := range identityWords(who) {
			b = binary.AppendUvarint(b, ids[*s])
		}
	}
	return b
}

func decodeWords(b []byte, share func([]byte) string) (w words, err error) {
	r := &pageReader{buf: b}
	defer func() {
		if r.short {
			err = io.ErrUnexpectedEOF
		}
	}()
	w.strings = make([]string, 0, min(r.number(), uint64(len(b))))
	for range cap(w.strings) {
		w.strings = append(w.strings, share(r.bytes(int(min(r.number(), uint64(len(b)))))))
	}
	n := min(r.number(), uint64(len(b)))
	w.identities = make([]flow.Identity, n)
	for i := range w.identities {
		who := &w.identities[i]
		who.CgroupID, who.PID = r.number(), uint32(r.number())
		for _, s := range identityWords(who) {
			at := r.number()
			if at >= uint64(len(w.strings)) {
				return w, fmt.Errorf("word %d of %d", at, len(w.strings))
			}
			*s = w.strings[at]
		}
	}
	return w, nil
}

// identityWords are the strings of an identity.
func identityWords(i *flow.Identity) [15]*string {
	return [15]*string{
		&i.Cgroup, &i.ContainerID, &i.Runtime, &i.PodUID, &i.QOSClass, &i.Pod, &i.Namespace, &i.Container, &i.Unit, &i.Process,
		&i.Workload, &i.WorkloadKind, &i.Service, &i.KubernetesNode, &i.Labels,
	}
}
