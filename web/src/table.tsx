import type { ComponentChildren } from 'preact'
import { Fragment } from 'preact'
import { useRef, useState } from 'preact/hooks'

export interface Column<T> {
  key: string
  title: string
  /** What a row is ordered by; a column without it cannot be sorted by. */
  order?: (row: T) => string | number
  cell: (row: T) => ComponentChildren
  right?: boolean
  /** Left out where there is little room. */
  wide?: boolean
}

interface Props<T> {
  label: string
  columns: Column<T>[]
  rows: T[]
  id: (row: T) => string
  sort?: string
  onSort?: (sort: string) => void
  details?: (row: T) => ComponentChildren
}

/** A table whose rows are one stop of the Tab key: arrows move between them, Enter opens what is known of one. */
export function Table<T>({ label, columns, rows, id, sort = '', onSort, details }: Props<T>) {
  const [open, setOpen] = useState('')
  const [at, setAt] = useState(0)
  const body = useRef<HTMLTableSectionElement>(null)
  const descending = sort.startsWith('-')
  const by = columns.find((c) => c.key === sort.replace('-', ''))
  const sorted = by?.order ? [...rows].sort((a, b) => compare(by.order!(a), by.order!(b)) * (descending ? -1 : 1)) : rows
  const stop = Math.min(at, sorted.length - 1)
  const move = (to: number) => {
    const next = Math.max(0, Math.min(sorted.length - 1, to))
    setAt(next)
    body.current?.querySelectorAll<HTMLElement>('tr[data-row]')[next]?.focus()
  }
  const onKey = (event: KeyboardEvent, i: number, key: string) => {
    if (event.target !== event.currentTarget) return
    const to = { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: sorted.length - 1, PageDown: i + 15, PageUp: i - 15 }[event.key]
    if (to !== undefined) move(to)
    else if (details && (event.key === 'Enter' || event.key === ' ')) setOpen(open === key ? '' : key)
    else if (event.key === 'Escape') setOpen('')
    else return
    event.preventDefault()
  }
  return (
    <div class="scroll">
      <table aria-label={label}>
        <thead>
          <tr>
            {columns.map((c) => (
              <th
                key={c.key}
                scope="col"
                class={classes(c)}
                aria-sort={c === by ? (descending ? 'descending' : 'ascending') : undefined}
              >
                {c.order && onSort
                  ? (
                    <button type="button" onClick={() => onSort(c === by && descending ? c.key : `-${c.key}`)}>
                      {c.title}<span aria-hidden="true">{c === by ? (descending ? ' ▾' : ' ▴') : ''}</span>
                    </button>
                  )
                  : c.title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody ref={body}>
          {sorted.map((row, i) => {
            const key = id(row)
            return (
              <Fragment key={key}>
                <tr
                  data-row
                  tabIndex={i === stop ? 0 : -1}
                  aria-expanded={details ? open === key : undefined}
                  class={details ? 'opens' : undefined}
                  onFocus={() => setAt(i)}
                  onKeyDown={(event) => onKey(event, i, key)}
                  onClick={(event) => {
                    if (details && !(event.target as HTMLElement).closest('a, button')) setOpen(open === key ? '' : key)
                  }}
                >
                  {columns.map((c) => <td key={c.key} class={classes(c)}>{c.cell(row)}</td>)}
                </tr>
                {details && open === key && <tr class="details"><td colSpan={columns.length}>{details(row)}</td></tr>}
              </Fragment>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}

const classes = (c: { right?: boolean; wide?: boolean }) => [c.right && 'right', c.wide && 'wide'].filter(Boolean).join(' ') || undefined

function compare(a: string | number, b: string | number): number {
  return typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b))
}
