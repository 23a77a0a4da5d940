import { useEffect, useState } from 'preact/hooks'
import { clock } from './format'
import { spans, useRange } from './range'
import { change, go } from './url'

const names: Record<string, string> = { '5m': '5 min', '15m': '15 min', '1h': '1 h', '6h': '6 h' }

/** What a field for local time takes. */
function local(d: Date): string {
  return new Date(d.getTime() - d.getTimezoneOffset() * 60_000).toISOString().slice(0, 19)
}

export function RangePicker() {
  const range = useRange()
  const [open, setOpen] = useState(false)
  return (
    <div class="range" role="group" aria-label="Time range">
      <select
        aria-label="Time range"
        value={range.span || 'custom'}
        onChange={(event) => {
          const { value } = event.currentTarget
          if (value === 'custom') setOpen(true)
          else go(change({ t: value, since: null, until: null }))
        }}
      >
        {spans.map((s) => <option key={s} value={s}>last {names[s]}</option>)}
        <option value="custom">{range.span ? 'from … to …' : `${local(range.since).replace('T', ' ')} – ${clock(range.until)}`}</option>
      </select>
      <button
        type="button"
        class="live"
        aria-pressed={range.live}
        title="Ask again every few seconds (l)"
        onClick={() => go(change({ live: range.live ? '0' : null, since: null, until: null }), true)}
      >
        {range.live ? '● live' : '○ paused'}
      </button>
      {open && <Custom onClose={() => setOpen(false)} />}
    </div>
  )
}

function Custom({ onClose }: { onClose: () => void }) {
  const range = useRange()
  const [since, setSince] = useState(local(range.since))
  const [until, setUntil] = useState(local(range.until))
  const [wrong, setWrong] = useState('')
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => { if (event.key === 'Escape') onClose() }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [onClose])
  return (
    <form
      class="custom"
      onSubmit={(event) => {
        event.preventDefault()
        const [from, to] = [new Date(since), new Date(until)]
        if (!(from < to)) return setWrong('The range must end after it begins.')
        go(change({ t: null, live: null, since: from.toISOString(), until: to.toISOString() }))
        onClose()
      }}
    >
      <label>From <input type="datetime-local" step="1" value={since} onInput={(e) => setSince(e.currentTarget.value)} autofocus /></label>
      <label>To <input type="datetime-local" step="1" value={until} onInput={(e) => setUntil(e.currentTarget.value)} /></label>
      {wrong && <p role="alert">{wrong}</p>}
      <button type="submit">Show</button>
      <button type="button" class="quiet" onClick={onClose}>Cancel</button>
    </form>
  )
}
