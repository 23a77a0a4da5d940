package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"github.com/parquet-go/parquet-go/compress/zstd"
)

// footerBytes are what is behind the sections.
const footerBytes = (sections+1)*8 + 4 + uint64(len(indexMagic))

// index is an index that can be read.
type index struct {
	path string
	data []byte
	ends [sections]uint64
	rows uint64
	// width is how many bits of a hash choose its bucket.
	width                                                    int
	pageEnds, addresses, postings, buckets, entries, rollups []byte
	identities                                               int
	lexicon                                                  *lexicon
	// broken tells that a page could not be read.
	broken atomic.Bool
}

// openIndex opens the index of a block, and checks all but its pages, which are checked when they are read.
func openIndex(path string, rows uint64, l *lexicon) (x *index, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if uint64(stat.Size()) < uint64(len(indexMagic))+footerBytes {
		return nil, fmt.Errorf("cannot read the index %s: it has %d bytes", path, stat.Size())
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(stat.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("cannot map the index %s: %w", path, err)
	}
	x = &index{path: path, data: data, lexicon: l}
	if err := faults(x.parse); err != nil {
		return nil, fmt.Errorf("cannot read the index %s: %w", path, errors.Join(err, x.Close()))
	}
	if x.rows != rows {
		return nil, errors.Join(fmt.Errorf("cannot use the index %s: it has %d rows, and the block %d", path, x.rows, rows), x.Close())
	}
	return x, nil
}

// faults makes an error of a panic, also of one that a mapped file gives which a disk cannot read.
func faults(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return do()
}

func (x *index) Close() error {
	x.lexicon.forget(x)
	return syscall.Munmap(x.data)
}

func (x *index) Size() uint64 { return uint64(len(x.data)) }

// discard closes the index and removes it.
func (x *index) discard() error { return errors.Join(x.Close(), os.Remove(x.path)) }

var errSum = errors.New("its checksum is another one")

// checked returns what is between two places of the file without its CRC.
func (x *index) checked(from, to uint64) ([]byte, error) {
	if to > uint64(len(x.data)) || from+4 > to {
		return nil, fmt.Errorf("there is nothing from byte %d to %d", from, to)
	}
	b := x.data[from : to-4]
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(x.data[to-4:]) {
		return nil, errSum
	}
	return b, nil
}

func (x *index) parse() error {
	end := uint64(len(x.data) - len(indexMagic))
	if string(x.data[:len(indexMagic)]) != indexMagic || string(x.data[end:]) != indexMagic {
		return errors.New("it is no index of this version")
	}
	footer, err := x.checked(end-(footerBytes-uint64(len(indexMagic))), end)
	if err != nil {
		return err
	}
	for i := range x.ends {
		x.ends[i] = binary.LittleEndian.Uint64(footer[8*i:])
	}
	x.rows = binary.LittleEndian.Uint64(footer[8*sections:])
	var parts [sections][]byte
	for i := sectionPageEnds; i < sections; i++ {
		if i == sectionWords {
			continue // when it is used
		}
		if parts[i], err = x.checked(x.ends[i-1], x.ends[i]); err != nil {
			return err
		}
	}
	x.pageEnds, x.addresses, x.postings = parts[sectionPageEnds], parts[sectionAddresses], parts[sectionPostings]
	x.identities = int(binary.LittleEndian.Uint32(x.postings)) - len(x.addresses)/16
	x.rollups = parts[sectionRollup]
	hashes := parts[sectionHashes]
	x.width = int(binary.LittleEndian.Uint32(hashes))
	x.buckets, x.entries = hashes[4:4+4<<x.width], hashes[4+4<<x.width:]
	if pages := (x.rows + pageRows - 1) / pageRows; uint64(len(x.pageEnds)) != 8*pages || x.identities < 0 {
		return fmt.Errorf("it has %d rows in %d pages", x.rows, len(x.pageEnds)/8)
	}
	return nil
}

func (x *index) pages() int { return len(x.pageEnds) / 8 }

// decodeWords returns the words, which take a while to decode. share makes their strings.
func (x *index) decodeWords(share func([]byte) string) (w words, err error) {
	err = faults(func() error {
		packed, err := x.checked(x.ends[sectionWords-1], x.ends[sectionWords])
		if err != nil {
			return err
		}
		plain, err := (&zstd.Codec{}).Decode(nil, packed)
		if err != nil {
			return err
		}
		w, err = decodeWords(plain, share)
		if err == nil && len(w.identities) != x.identities {
			err = fmt.Errorf("it has %d identities and lists for %d", len(w.identities), x.identities)
		}
		return err
	})
	return w, err
}

// posting hands the pages of an identity or, from x.identities on, of an address to a function.
func (x *index) posting(at int, use func(page uint32)) {
	n := int(binary.LittleEndian.Uint32(x.postings))
	lists := x.postings[4+4*n:]
	from := uint32(0)
	if at > 0 {
		from = binary.LittleEndian.Uint32(x.postings[4*at:])
	}
	list := lists[from:binary.LittleEndian.Uint32(x.postings[4+4*at:])]
	var page uint64
	for len(list) > 0 {
		delta, width := binary.Uvarint(list)
		list, page = list[width:], page+delta
		use(uint32(page))
	}
}

// find hands the pages that may have rows of a hash to a function.
func (x *index) find(h uint64, use func(page uint32)) {
	bucket := h >> (64 - x.width)
	var from uint32
	if bucket > 0 {
		from = binary.LittleEndian.Uint32(x.buckets[4*(bucket-1):])
	}
	to := binary.LittleEndian.Uint32(x.buckets[4*bucket:])
	kept := hashEntry(h, x.width)
	for ; from < to; from++ {
		if e := binary.LittleEndian.Uint32(x.entries[4*from:]); e&^(maxPages-1) == kept {
			use(e & (maxPages - 1))
		}
	}
}

// read hands the rows of a page to a function; health is nil where a row has none. Both are valid until it returns.
func (x *index) read(page uint32, use func(r *row, h *health)) error {
	return x.readWith(&pageReader{}, page, use)
}

// readWith is read for who reads many pages, and has a reader for all of them.
func (x *index) readWith(r *pageReader, page uint32, use func(r *row, h *health)) error {
	from := uint64(len(indexMagic))
	if page > 0 {
		from = binary.LittleEndian.Uint64(x.pageEnds[8*(page-1):])
	}
	b, err := x.checked(from, binary.LittleEndian.Uint64(x.pageEnds[8*page:]))
	if err != nil {
		return err
	}
	*r = pageReader{buf: b, addresses: x.addresses}
	for range min(pageRows, int(x.rows)-int(page)*pageRows) {
		h := &r.health
		if !r.next() {
			h = nil
		}
		if r.short {
			return fmt.Errorf("page %d ends too early", page)
		}
		use(&r.row, h)
	}
	return nil
}
