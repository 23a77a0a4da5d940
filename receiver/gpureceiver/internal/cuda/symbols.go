package cuda

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What of a file is read at most: a driver library has 40 sections and less than 100 KiB of symbols and names. A file says of itself
// how large its parts are, and it may be any file of that name in anybody's container.
const (
	maxSections    = 4096
	maxSegments    = 1024
	maxSymbolBytes = 16 << 20
)

// symbols are where a library has its exported functions, as offsets into the file.
type symbols struct {
	machine elf.Machine
	offsets map[string]uint64
}

// readSymbols finds those of the wanted functions that a library of this machine's byte order exports.
func readSymbols(r io.ReaderAt, wanted []function) (*symbols, error) {
	var h elf.Header64
	if err := readAt(r, 0, &h); err != nil {
		return nil, fmt.Errorf("cannot read the ELF header: %w", err)
	}
	switch {
	case string(h.Ident[:4]) != elf.ELFMAG:
		return nil, errors.New("not an ELF file")
	case elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(h.Ident[elf.EI_DATA]) != elf.ELFDATA2LSB:
		return nil, errors.New("not a 64-bit little-endian ELF file")
	case h.Shentsize != 64 || h.Phentsize != 56 || h.Shnum > maxSections || h.Phnum > maxSegments:
		return nil, fmt.Errorf("%d sections of %d bytes and %d segments of %d are not what a library has", h.Shnum, h.Shentsize, h.Phnum, h.Phentsize)
	}
	sections := make([]elf.Section64, h.Shnum)
	if err := readAt(r, h.Shoff, sections); err != nil {
		return nil, fmt.Errorf("cannot read the sections: %w", err)
	}
	segments := make([]elf.Prog64, h.Phnum)
	if err := readAt(r, h.Phoff, segments); err != nil {
		return nil, fmt.Errorf("cannot read the segments: %w", err)
	}
	s := &symbols{elf.Machine(h.Machine), map[string]uint64{}}
	for _, section := range sections {
		if elf.SectionType(section.Type) != elf.SHT_DYNSYM {
			continue
		}
		if section.Link >= uint32(len(sections)) {
			return nil, fmt.Errorf("the symbols' names are in section %d of %d", section.Link, len(sections))
		}
		if err := s.read(r, section, sections[section.Link], segments, wanted); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *symbols) read(r io.ReaderAt, table, names elf.Section64, segments []elf.Prog64, wanted []function) error {
	if table.Size > maxSymbolBytes || names.Size > maxSymbolBytes {
		return fmt.Errorf("symbols of %d bytes with names of %d are too many", table.Size, names.Size)
	}
	all := make([]elf.Sym64, table.Size/elf.Sym64Size)
	if err := readAt(r, table.Off, all); err != nil {
		return fmt.Errorf("cannot read the symbols: %w", err)
	}
	text := make([]byte, names.Size)
	if err := readAt(r, names.Off, text); err != nil {
		return fmt.Errorf("cannot read the symbols' names: %w", err)
	}
	isWanted := make(map[string]bool, len(wanted))
	for _, f := range wanted {
		isWanted[f.name] = true
	}
	for _, symbol := range all {
		if elf.ST_TYPE(symbol.Info) != elf.STT_FUNC || symbol.Shndx == uint16(elf.SHN_UNDEF) || uint64(symbol.Name) >= uint64(len(text)) {
			continue
		}
		name, _, _ := bytes.Cut(text[symbol.Name:], []byte{0})
		if !isWanted[string(name)] {
			continue
		}
		if at, ok := fileOffset(symbol.Value, segments); ok {
			s.offsets[string(name)] = at
		}
	}
	return nil
}

// fileOffset is where the code at an address is in the file.
func fileOffset(address uint64, segments []elf.Prog64) (uint64, bool) {
	for _, p := range segments {
		if elf.ProgType(p.Type) == elf.PT_LOAD && elf.ProgFlag(p.Flags)&elf.PF_X != 0 && address >= p.Vaddr && address-p.Vaddr < p.Filesz {
			return address - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}

// readAt reads a value of fixed size.
func readAt(r io.ReaderAt, at uint64, v any) error {
	const farthest = 1 << 62
	if at > farthest {
		return fmt.Errorf("offset %#x is beyond every file", at)
	}
	return binary.Read(io.NewSectionReader(r, int64(at), int64(binary.Size(v))), binary.LittleEndian, v)
}
