// Screening: an area at 40x, field by field, in a serpentine. An area seen whole is a reviewed region.

import { get, slideAddress, uuid } from "./api.js";
import { corners } from "./overlay.js";

const UM_PER_PX = 0.25;
const MIN_UM = 100;
const MAX_UM = 1500;

export class Screening {
  constructor(review, viewer, overlay) {
    this.review = review;
    this.viewer = viewer;
    this.overlay = overlay;
    this.active = false;
  }

  async start(area) {
    const { clientWidth, clientHeight } = this.viewer.osd.element;
    const side = (px) => Math.round(Math.max(MIN_UM, Math.min(MAX_UM, px * UM_PER_PX)));
    const query = new URLSearchParams({ area, width_um: side(clientWidth), height_um: side(clientHeight) });
    await this.review.flush();
    const { fields, areas } = await get(slideAddress(this.review.name, `/fields?${query}`, this.review.consensus));
    if (!fields.length) return false;
    Object.assign(this, { active: true, area, areas, fields });
    this.overlay.areas = areas;
    // It would cover a corner of every field.
    this.viewer.showNavigator(false);
    const first = fields.findIndex((field) => !field.seen);
    this.at = first < 0 ? 0 : first;
    this.show();
    return true;
  }

  show() {
    const { box } = this.fields[this.at];
    this.overlay.field = box;
    this.viewer.goTo((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 40);
    this.overlay.draw();
  }

  step(by) {
    this.at = (this.at + by + this.fields.length) % this.fields.length;
    this.show();
  }

  // Notes the field as seen; true once the whole area is.
  async seen() {
    const field = this.fields[this.at];
    if (!this.review.do("field", { mark: `field-${uuid()}`, outline: corners(field.box) })) return false;
    field.seen = true;
    if (this.fields.every((one) => one.seen)) {
      const own = this.area in this.review.state.regions;
      if (!own) this.review.doAll(this.areas.map((outline) => ({ kind: "region", mark: `region-${uuid()}`, outline, text: this.area })));
      await this.review.flush();
      return true;
    }
    let next = this.at;
    do next = (next + 1) % this.fields.length; while (this.fields[next].seen);
    this.at = next;
    this.show();
    return false;
  }

  text() {
    const seen = this.fields.filter((field) => field.seen).length;
    return `field ${this.at + 1}; ${seen} of ${this.fields.length} fields seen`;
  }

  stop() {
    this.active = false;
    this.overlay.field = null;
    this.overlay.areas = [];
    this.viewer.showNavigator(true);
    this.overlay.draw();
  }
}
