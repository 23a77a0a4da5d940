import { useState } from 'preact/hooks'
import { fieldOf, fields, paramsOf, parseTerm, selectionOf, type Term } from './filter'
import { change, go } from './url'

/** The filters of flows, which are in the address bar. What else belongs to a view of them is cleared when they change. */
export function FilterBar({ terms, clears = [] }: { terms: Term[]; clears?: string[] }) {
  const [key, setKey] = useState('from')
  const [text, setText] = useState('')
  const [wrong, setWrong] = useState('')
  const show = (next: Term[]) => go(change({ ...paramsOf(next), ...Object.fromEntries(clears.map((c) => [c, null])) }))
  const field = fieldOf(key)
  const untold = selectionOf(terms).errors
  const add = (not: boolean) => {
    if (!text.trim()) return
    const typed = parseTerm(text, key)
    const term = { ...typed, not: typed.not || not }
    const [error] = selectionOf([term]).errors
    if (error || !term.value) return setWrong(error ?? 'A value is missing.')
    setWrong('')
    setText('')
    show([...terms.filter((t) => t.key !== term.key || t.not !== term.not || t.value !== term.value), term])
  }
  return (
    <div class="filters">
      <form onSubmit={(event) => { event.preventDefault(); add(false) }}>
        <select aria-label="Filter by" value={key} onChange={(e) => setKey(e.currentTarget.value)}>
          {fields.map((f) => <option key={f.key} value={f.key}>{f.label}</option>)}
        </select>
        <input
          data-search
          aria-label={`Value of ${field?.label}`}
          aria-invalid={wrong !== ''}
          placeholder={field?.hint}
          title="KEY:VALUE works for any key, and “not ” before it denies: not port:53"
          list={field?.values && 'filter-values'}
          value={text}
          onInput={(e) => setText(e.currentTarget.value)}
          spellcheck={false}
          autocomplete="off"
        />
        <datalist id="filter-values">{field?.values?.map((v) => <option key={v} value={v} />)}</datalist>
        <button type="submit">Add</button>
        <button type="button" onClick={() => add(true)}>Exclude</button>
      </form>
      {wrong && <p class="wrong" role="alert">{wrong}</p>}
      {untold.length > 0 && <p class="wrong" role="alert">Left out of the filters: {untold.join('; ')}</p>}
      {terms.length > 0 && (
        <ul class="chips" aria-label="Filters">
          {terms.map((t) => (
            <li key={`${t.not} ${t.key} ${t.value}`} class={t.not ? 'not' : undefined}>
              <span>{t.not && <b>not </b>}{fieldOf(t.key)?.label}: <b>{t.value}</b></span>
              <button type="button" aria-label={`Remove ${t.not ? 'not ' : ''}${t.key} ${t.value}`} onClick={() => show(terms.filter((o) => o !== t))}>×</button>
            </li>
          ))}
          {terms.length > 1 && <li class="plain"><button type="button" onClick={() => show([])}>Remove all</button></li>}
        </ul>
      )}
    </div>
  )
}
