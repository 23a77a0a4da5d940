// What is done and expected on the page; the records are those of testbed/web.
import assert from 'node:assert/strict'

const main = (page) => page.locator('#main')
const row = (page, text) => page.locator('tr[data-row]', { hasText: text }).first()
const node = (page, label) => page.locator(`g.node[aria-label*=" ${label} in "]`)

export const scenarios = { empty, shop, units, crowd, host }

/** Nobody has reported: every page says what to do. */
async function empty({ open, shot, checkLooks, url }) {
  const page = await open()
  for (const path of ['', 'flows', 'pod', 'nodes']) {
    await page.goto(url + path)
    await page.getByText('No node has reported to this collector yet.').waitFor()
    await page.getByText('orb8 doctor').waitFor()
    await checkLooks(page, path)
    await shot(page, path || 'map')
  }
}

async function shop({ open, shot, checkLooks, url }) {
  await shopMap({ open, shot, checkLooks, url })
  await shopFlows({ open, shot, checkLooks, url })
  await shopPod({ open, shot, checkLooks, url })
  await shopNodes({ open, shot, checkLooks, url })
  await refusals({ open, shot, checkLooks, url })
}

async function shopMap({ open, shot, checkLooks, url }) {
  const page = await open()
  await node(page, 'cart').waitFor()
  for (const group of ['shop', 'payments', 'data', 'ml', 'ingress', 'Outside world', 'Host']) {
    await page.locator('.group text', { hasText: new RegExp(`^${group}$`) }).waitFor()
  }
  assert.equal(await node(page, 'web').count(), 1, 'two pods of a workload are one node')
  await node(page, 'api.bank.example').waitFor()
  await node(page, 'orders').waitFor()
  // checkout to orders fails, search to postgres retransmits: by sign and by pattern, not by colour alone.
  assert.equal(await page.locator('.sign.bad').count(), 2)
  assert.ok(await page.locator('.sign.warning').count() >= 1)
  const dashes = await page.locator('.edge-line').evaluateAll((all) => new Set(all.map((e) => getComputedStyle(e).strokeDasharray)).size)
  assert.equal(dashes, 3, 'patterns')
  const boxes = await page.locator('.group rect').evaluateAll((all) => all.map((e) => e.getBBox()).map(({ x, y, width, height }) => [x, y, x + width, y + height]))
  for (const [i, a] of boxes.entries()) {
    for (const b of boxes.slice(i + 1)) assert.ok(a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1], `boxes overlap: ${a} ${b}`)
  }
  await page.getByText('Did not report: node-c').waitFor()
  await page.getByText(/Not counted in this range: 1200 packets/).waitFor()
  await checkLooks(page, 'map')
  await shot(page, 'map-light')

  // By keyboard: into the map, to another node, and choose it.
  await page.locator('g.node[tabindex="0"]').focus()
  const before = await page.evaluate(() => document.activeElement.getAttribute('data-node'))
  await page.keyboard.press('ArrowRight')
  const after = await page.evaluate(() => document.activeElement.getAttribute('data-node'))
  assert.notEqual(after, before)
  await page.keyboard.press('Enter')
  await page.locator('.panel h2').waitFor()
  assert.ok(new URL(page.url()).searchParams.get('focus'))
  await page.keyboard.press('Escape')
  await page.locator('.panel').waitFor({ state: 'detached' })

  await node(page, 'search').click()
  await page.locator('.panel h2', { hasText: 'search' }).waitFor()
  await page.locator('.panel .edges button', { hasText: 'postgres' }).click()
  await page.locator('.panel', { hasText: '✕' }).waitFor()
  await shot(page, 'map-edge')
  await page.locator('.panel a', { hasText: 'Flows' }).first().click()
  await page.waitForURL(/flows\?.*from=workload\/shop\/search/)
  await row(page, 'postgres').waitFor()
  for (const text of await page.locator('tr[data-row]').allInnerTexts()) assert.match(text, /search-.*postgres-/s)
  await page.goBack()
  await page.locator('.panel').waitFor()

  // "Only this" filters the map.
  await page.goto(`${url}?focus=workload:shop/checkout`)
  await page.locator('.panel a', { hasText: 'Only this' }).click()
  await node(page, 'trainer').waitFor({ state: 'detached' })
  await node(page, 'payments-api').waitFor()
  await page.goto(url)
  await page.getByRole('link', { name: 'Only payments' }).click()
  await page.waitForURL(/namespace=payments/)
  await node(page, 'trainer').waitFor({ state: 'detached' })
  await node(page, 'checkout').waitFor()
  await page.goBack()
  await page.goto(`${url}?workload=shop/checkout`)
  await node(page, 'payments-api').waitFor()
  // The filters come along to the table.
  await page.keyboard.press('g')
  await page.keyboard.press('f')
  await page.waitForURL(/flows\?.*workload=shop\/checkout/)
  await page.context().close()

  const dark = await open(url, { colorScheme: 'dark' })
  await node(dark, 'cart').waitFor()
  await checkLooks(dark, 'map, dark')
  await shot(dark, 'map-dark')
  await dark.context().close()
  const narrow = await open(url, { viewport: { width: 390, height: 844 } })
  await node(narrow, 'cart').waitFor()
  await checkLooks(narrow, 'map, narrow')
  await shot(narrow, 'map-narrow')
  await narrow.context().close()
}

async function shopFlows({ open, shot, checkLooks, url }) {
  const page = await open(`${url}flows?live=0`)
  await page.locator('tr[data-row]').first().waitFor()
  await checkLooks(page, 'flows')
  await shot(page, 'flows-light')

  // A filter by keyboard; what cannot be one is told.
  await page.keyboard.press('/')
  await page.keyboard.type('to:svc/data/postgres:5432\n')
  await page.waitForURL(/to=svc\/data\/postgres:5432/)
  await row(page, 'postgres').waitFor()
  await page.waitForFunction(() => [...document.querySelectorAll('tr[data-row]')].every((r) => r.textContent.includes('postgres')))
  await page.keyboard.type('not pod:checkout-nobody\n')
  await page.waitForURL(/not\.pod=checkout-nobody/)
  await page.keyboard.type('port:http\n')
  await page.getByText('"http" is no port').waitFor()
  await page.locator('.chips button').first().click()
  await page.waitForFunction(() => !location.search.includes('to='))

  // Sorted, opened, walked through, all by keyboard.
  await page.goto(`${url}flows?namespace=shop&live=0`)
  await page.getByRole('button', { name: 'Bytes' }).focus()
  await page.keyboard.press('Enter')
  await page.locator('th[aria-sort="descending"]').waitFor()
  const sizes = (await page.locator('tr[data-row] td:nth-child(7)').allInnerTexts()).map(toBytes)
  assert.ok(sizes.length > 10)
  assert.deepEqual(sizes, [...sizes].sort((a, b) => b - a))
  await page.locator('tr[data-row][tabindex="0"]').focus()
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('Enter')
  await page.locator('tr.details').waitFor()
  assert.ok(await page.locator('tr[data-row]:nth-child(2)').evaluate((e) => e === document.activeElement))
  await page.getByText('Connection id').waitFor()
  await checkLooks(page, 'flow details')
  await shot(page, 'flows-details')

  // Another time range, by keyboard: it goes along to other pages.
  await page.goto(`${url}flows`)
  await page.locator('tr[data-row]').first().waitFor()
  await page.keyboard.press('1')
  await page.waitForURL(/t=5m/)
  await page.keyboard.press('l')
  await page.waitForURL(/live=0/)
  await page.getByRole('link', { name: 'Nodes' }).click()
  await page.waitForURL(/nodes\?t=5m&live=0/)
  await page.goto(`${url}flows?since=2001-01-01T00:00:00Z&until=2001-01-01T01:00:00Z`)
  await page.getByText('nothing is known of this time').waitFor()
  await page.keyboard.press('?')
  await page.getByRole('heading', { name: 'Keyboard shortcuts' }).waitFor()
  await checkLooks(page, 'help')
  await page.keyboard.press('Escape')
  await page.getByRole('heading', { name: 'Keyboard shortcuts' }).waitFor({ state: 'detached' })
  await page.goto(`${url}flows?pod=nobody&t=15m`)
  await page.getByText('nothing of this time matches the filters').waitFor()
  await page.getByRole('link', { name: 'Remove the filters' }).click()
  await page.locator('tr[data-row]').first().waitFor()
  await page.context().close()

  const dark = await open(`${url}flows`, { colorScheme: 'dark', viewport: { width: 390, height: 844 } })
  await dark.locator('tr[data-row]').first().waitFor()
  await checkLooks(dark, 'flows, dark and narrow')
  await shot(dark, 'flows-dark-narrow')
  await dark.context().close()
}

function toBytes(text) {
  const [n, unit] = text.split(' ')
  return Number(n) * 1024 ** ['B', 'KiB', 'MiB', 'GiB'].indexOf(unit)
}

async function shopPod({ open, shot, checkLooks, url }) {
  const page = await open(`${url}pod`)
  await page.locator('tr[data-row]').first().waitFor()
  await page.keyboard.press('/')
  await page.keyboard.type('search')
  await row(page, 'shop/search-').waitFor()
  await page.waitForFunction(() => document.querySelectorAll('tr[data-row]').length === 1)
  await shot(page, 'pods')
  await page.keyboard.press('Enter')
  await page.waitForURL(/pod=shop\/search-/)
  const titles = ['Traffic', 'Trouble, in 30 s', 'System calls', 'Anomalies']
  for (const title of titles) await page.locator('.chart', { hasText: title }).first().waitFor()
  await row(page, 'data/postgres').waitFor()
  await row(page, 'epoll_wait').waitFor()
  await row(page, 'search loads a kernel module').waitFor()

  // One cursor for all charts: what one shows of an instant, all show.
  const chart = page.locator('.chart .u-over').first()
  const box = await chart.boundingBox()
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2)
  await page.waitForFunction(() => {
    const times = [...document.querySelectorAll('.chart')].map((c) => c.querySelector('.u-legend .u-value')?.textContent)
    return times.length >= 4 && /\d\d:\d\d:\d\d/.test(times[0]) && new Set(times).size === 1
  })
  const plots = await page.locator('.chart .u-over').evaluateAll((all) => all.map((e) => { const r = e.getBoundingClientRect(); return [r.left, r.right] }))
  for (const plot of plots) assert.deepEqual(plot, plots[0], 'charts are in line')
  await checkLooks(page, 'pod')
  await shot(page, 'pod-light')
  // The theme by keyboard; it is kept.
  await page.keyboard.press('d')
  await checkLooks(page, 'pod, dark')
  await shot(page, 'pod-dark')
  await page.reload()
  await page.locator('.chart').first().waitFor()
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark')
  await page.goto(`${url}pod`)
  await page.getByRole('link', { name: /^ml\/trainer-/ }).click()
  const panels = ['GPU utilization', 'GPU memory', 'GPU power', 'GPU errors (XID)']
  for (const panel of panels) await page.locator('.chart', { hasText: panel }).waitFor()
  assert.deepEqual((await page.locator('.chart figcaption').allTextContents()).filter((t) => t.startsWith('GPU')), panels)
  const lines = (panel) => page.locator('.chart', { hasText: panel }).locator('.u-legend .u-label').allTextContents()
  assert.deepEqual(await lines('GPU utilization'), ['Time', 'GPU 0', 'GPU 1'], 'the encoder is not the GPU')
  assert.deepEqual(await lines('GPU errors'), ['Time', 'GPU 1 XID 79'])
  // What was measured says so without a picture, too.
  const spoken = (panel) => page.locator('.chart', { hasText: panel }).getByRole('img').getAttribute('aria-label')
  assert.match(await spoken('GPU errors'), /GPU 1 XID 79: at most 2, last \d/)
  assert.match(await spoken('GPU power'), /GPU 0: at most \d{3} W/)
  await shot(page, 'pod-gpu-dark')
  await page.locator('.chart', { hasText: panels.at(-1) }).scrollIntoViewIfNeeded()
  await checkLooks(page, 'pod with GPUs, dark')
  await shot(page, 'pod-gpu-errors-dark')
  await page.goto(`${url}pod?workload=shop/web&t=1h`)
  await row(page, 'shop/cart').waitFor()
  await page.context().close()
}

async function shopNodes({ open, shot, checkLooks, url }) {
  const page = await open(`${url}nodes`)
  await page.getByText('1 of 3 nodes has not reported').waitFor()
  await row(page, 'node-b').getByText('▲ 1200 packets').waitFor()
  await row(page, 'node-b').getByText('1 unavailable').waitFor()
  await row(page, 'node-b').click()
  await page.getByText('it needs Linux 5.17').waitFor()
  await checkLooks(page, 'nodes')
  await shot(page, 'nodes')
  await page.context().close()
}

/** What the page says when it may not ask, and when nobody answers. */
async function refusals({ open, shot, checkLooks, url }) {
  const api = '**/orb8.v1.OrbitService/*'
  const page = await open(`${url}flows`, {}, ['401', 'ERR_CONNECTION_REFUSED', 'ERR_FAILED', '500'])
  await page.locator('tr[data-row]').first().waitFor()
  await page.route(api, (route) => route.fulfill({ status: 401, body: 'unauthorized' }))
  await page.keyboard.press('1')
  await page.getByText('The collector does not know who asks (401)').waitFor()
  await checkLooks(page, 'refused')
  await shot(page, 'refused')
  await page.unroute(api)
  await page.route(api, (route) => route.abort('connectionrefused'))
  await page.keyboard.press('2')
  await page.getByText('The collector does not answer.').waitFor()
  // It recovers by itself.
  await page.unroute(api)
  await page.locator('tr[data-row]').first().waitFor()
  await page.getByText('The collector does not answer.').waitFor({ state: 'detached' })
  await page.context().close()
}

/** A host's systemd units, in place of pods. */
async function units({ open, shot, checkLooks, url }) {
  const page = await open()
  await node(page, 'nginx.service').waitFor()
  assert.equal(await page.locator('g.node').count(), 4, 'two units, a process of a session, and one outside')
  await node(page, 'curl').waitFor()
  await shot(page, 'map')
  await node(page, 'nginx.service').click()
  await page.locator('.panel').getByRole('link', { name: 'Unit' }).click()
  await page.waitForURL(/pod\?.*cgroup=\/system.slice\/nginx.service/)
  await page.locator('.chart', { hasText: 'Traffic' }).waitFor()
  await row(page, 'api.bank.example').waitFor()
  await page.getByRole('link', { name: 'postgresql.service' }).click()
  await page.waitForURL(/postgresql/)
  await row(page, 'nginx.service').waitFor()
  await page.getByRole('link', { name: 'Flows' }).last().click()
  await page.waitForURL(/flows\?.*cgroup=\/system.slice\/postgresql.service/)
  await row(page, 'postgresql.service:5432').waitFor()
  assert.equal(await page.locator('tr[data-row]').count(), 2)
  await page.goto(`${url}pod`)
  await row(page, '/user.slice/session-1.scope').waitFor()
  await checkLooks(page, 'units')
  await page.context().close()
}

/** Thousands of connections, and names that are attacks. */
async function crowd({ open, shot, checkLooks, url }) {
  const page = await open(`${url}?edges=250`)
  await page.locator('g.node').first().waitFor()
  await page.getByText(/250 of \d+(\.\d+)?k? connections/).waitFor()
  await page.locator('.map').evaluate((map) => { map.dataset.old = 'yes' })
  const began = Date.now()
  await page.keyboard.press('1')
  await page.locator('.map:not([data-old]) g.node').first().waitFor()
  console.log(`a map of a crowd was drawn ${Date.now() - began} ms after it was asked for`)
  assert.ok(Date.now() - began < 5000, `the map took ${Date.now() - began} ms`)
  await checkLooks(page, 'map of a crowd')
  await shot(page, 'map')
  await page.goto(`${url}?workload=team-00/service-000&edges=250`)
  await page.locator('g.node').first().waitFor()
  await page.locator('.edges .who', { hasText: '<script>window.harmed=1</script>' }).first().waitFor()
  await shot(page, 'map-hostile')
  for (const evil of await page.locator('g.node[data-node^="name:"]').all()) {
    await evil.click({ force: true })
    await page.locator('.panel h2').waitFor()
    await evil.click({ force: true })
  }

  await page.goto(`${url}flows?pod=team-00/${await podOf(page)}&live=0`)
  await page.locator('tr[data-row]', { hasText: '<script>' }).first().click()
  await page.locator('tr.details').waitFor()
  await shot(page, 'flows-hostile')

  // Pages: the older rows are others, and newer ones come back.
  await page.goto(`${url}flows`)
  await page.locator('tr[data-row]').first().waitFor()
  const firstPage = await page.locator('tr[data-row]').allInnerTexts()
  assert.equal(firstPage.length, 200)
  await page.getByRole('button', { name: 'Older' }).click()
  await page.getByText(/^201–400 of/).waitFor()
  await page.getByRole('button', { name: 'Newer' }).click()
  await page.getByText(/^1–200 of/).waitFor()

  await page.goto(`${url}flows?pod=${encodeURIComponent('<img src=x onerror=window.harmed=1>')}&t=javascript:1&since=x`)
  await page.getByText('matches the filters').waitFor()
  await page.goto(`${url}pod?pod=team-00/${await podOf(page)}`)
  await page.getByText('ran </p><img').waitFor()
  await row(page, '<script>').waitFor()
  await shot(page, 'pod-hostile')
  await page.goto(`${url}?focus=__proto__&edges=constructor&t=constructor&sort=__proto__`)
  await page.locator('g.node').first().waitFor()
  await page.goto(`${url}flows?direction=constructor&not.from=__proto__/x&sort=-constructor`)
  await page.getByText('Left out of the filters: direction: "constructor" is unknown').waitFor()
  await page.locator('tr[data-row]').first().waitFor()
  assert.equal(await page.evaluate(() => window.harmed), undefined, 'a name ran')
  await page.context().close()
}

/** The pod of the workload that the hostile names talk to. */
async function podOf(page) {
  const reply = await page.evaluate(async () => {
    const response = await fetch('/orb8.v1.OrbitService/Aggregate', {
      method: 'POST', headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ allow: [{ source: { workloads: ['team-00/service-000'] } }], by: ['source.pod'] }),
    })
    return response.json()
  })
  return reply.groups[0].by[0].split('/')[1]
}

/** No Kubernetes: processes instead of pods. */
async function host({ open, shot, checkLooks, url }) {
  const page = await open()
  await page.locator('tr[data-row]').first().waitFor()
  await page.locator('tr[data-row]').first().click()
  await page.getByText('Process').first().waitFor()
  await shot(page, 'flows')
  await page.keyboard.press('g')
  await page.keyboard.press('m')
  await page.locator('g.node[data-node^="process:"]').first().waitFor()
  await page.locator('.group text', { hasText: 'Host' }).waitFor()
  await checkLooks(page, 'map of a host')
  await shot(page, 'map')
  await page.keyboard.press('g')
  await page.keyboard.press('p')
  await page.locator('tr[data-row]', { hasText: 'cgroup' }).first().waitFor()
  await page.locator('tr[data-row] a').first().click()
  await page.locator('.chart', { hasText: 'Traffic' }).waitFor()
  await page.locator('.chart', { hasText: 'System calls' }).waitFor()
  await checkLooks(page, 'a cgroup')
  await shot(page, 'cgroup')
  await page.goto(new URL('/nodes', url).href)
  await row(page, '✓').click()
  await page.getByText('Ring buffer').first().waitFor()
  await checkLooks(page, 'nodes of a host')
  await shot(page, 'nodes')
  assert.ok(await main(page).isVisible())
}
