import { Component, type ComponentChildren, type FunctionComponent } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import { Help } from './help'
import { termsOf, paramsOf } from './filter'
import { FlowsPage } from './pages/flows'
import { MapPage } from './pages/map'
import { NodesPage } from './pages/nodes'
import { PodPage } from './pages/pod'
import { RangePicker } from './picker'
import { RangeContext, spans, useRangeOf } from './range'
import { change, follow, go, linkTo, usePlace } from './url'

interface Page {
  path: string
  title: string
  key: string
  view: FunctionComponent
}

const pages: Page[] = [
  { path: '', title: 'Map', key: 'm', view: MapPage },
  { path: 'flows', title: 'Flows', key: 'f', view: FlowsPage },
  { path: 'pod', title: 'Pods', key: 'p', view: PodPage },
  { path: 'nodes', title: 'Nodes', key: 'n', view: NodesPage },
]

export function App() {
  const place = usePlace()
  const range = useRangeOf(place)
  const [help, setHelp] = useState(false)
  const page = pages.find((p) => p.path === place.page) ?? pages[0]!
  // The map and the table have the same filters.
  const filtered = page.path === '' || page.path === 'flows' ? paramsOf(termsOf(place.params)) : {}
  const linkOf = (p: Page) => linkTo(p.path, p.path === '' || p.path === 'flows' ? filtered : {})

  useTheme()
  useEffect(() => {
    document.title = `${page.title} · orb8`
  }, [page])
  useShortcuts((key, after) => {
    const to = after === 'g' && pages.find((p) => p.key === key)
    if (to) go(linkOf(to))
    else if (key === '?') setHelp(true)
    else if (key === 'l') go(change({ live: range.live ? '0' : null, since: null, until: null }), true)
    else if (key === 'd') switchTheme()
    else if (key === '/') document.querySelector<HTMLElement>('[data-search]')?.focus()
    else if (/^[1-9]$/.test(key) && spans[Number(key) - 1]) go(change({ t: spans[Number(key) - 1]!, since: null, until: null }), true)
    else return false
    return true
  })

  return (
    <RangeContext.Provider value={range}>
      <a class="skip" href="#main">Skip to the content</a>
      <header>
        <strong class="brand">orb8</strong>
        <nav aria-label="Pages">
          {pages.map((p) => (
            <a key={p.path} href={linkOf(p)} onClick={follow} aria-current={p === page ? 'page' : undefined}>{p.title}</a>
          ))}
        </nav>
        <RangePicker />
        <button type="button" class="quiet" onClick={switchTheme} title="Light or dark (d)" aria-label="Switch between light and dark">◐</button>
        <button type="button" class="quiet" onClick={() => setHelp(true)} title="Keyboard shortcuts (?)" aria-label="Keyboard shortcuts">?</button>
      </header>
      <main id="main" tabIndex={-1}>
        <Guard key={page.path}><page.view /></Guard>
      </main>
      {help && <Help onClose={() => setHelp(false)} />}
    </RangeContext.Provider>
  )
}

/** Shows what went wrong in place of a page that could not be drawn. */
class Guard extends Component<{ children: ComponentChildren }, { error?: Error }> {
  override state: { error?: Error } = {}

  static override getDerivedStateFromError(error: Error) {
    return { error }
  }

  override render() {
    const { error } = this.state
    if (!error) return this.props.children
    return (
      <div class="notice bad" role="alert">
        <span aria-hidden="true">✕</span>
        <p>This page broke: {error.message}. <a href={linkTo('')}>Begin anew</a></p>
      </div>
    )
  }
}

/** Calls with each key that is not being typed into something, and with the one before it. */
function useShortcuts(press: (key: string, after: string) => boolean) {
  useEffect(() => {
    let before = ''
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input, select, textarea, dialog')) return
      if (press(event.key, before)) event.preventDefault()
      before = event.key
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  })
}

const themeKey = 'orb8.theme'

function useTheme() {
  useEffect(() => {
    const chosen = localStorage.getItem(themeKey)
    if (chosen) document.documentElement.dataset.theme = chosen
  }, [])
}

function switchTheme() {
  const root = document.documentElement
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
  root.dataset.theme = dark ? 'light' : 'dark'
  localStorage.setItem(themeKey, root.dataset.theme)
  // Canvases do not follow style sheets.
  dispatchEvent(new Event('theme'))
}
