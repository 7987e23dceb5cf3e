//! Every text of the interface. `index.html` names the constants in double braces, and the build puts them in; so this
//! file depends on nothing.

macro_rules! texts {
    ($($name:ident = $text:expr;)*) => {
        $(#[doc = $text] pub const $name: &str = $text;)*
        /// All constants by name, for `index.html`.
        pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

texts! {
    TITLE = "Kosmos · pictures are words here";
    DESCRIPTION = "Put pictures into a sentence, and the sentence becomes a picture. It runs in this page, also offline.";
    BRAND = "kosmos";
    TAGLINE = "Pictures are words here.";
    NO_SCRIPT = "This page computes its pictures itself, in WebAssembly. Please allow scripts for it.";

    OFFLINE_READY = "Works offline now";
    INSTALL = "Install";
    SHORTCUT_NEW = "A new picture";
    SHORTCUT_SERVER = "Pictures by the server";
    NEWER = "A newer version of this page is ready.";
    RELOAD = "Reload";
    LATER = "Later";
    CRASHED = "This page has stopped";
    CRASHED_BROKEN = "A fault in its program ended it. Reload the page to go on; a report helps those who mend it.";
    CRASHED_UNLOADED = "A part of its program could not be loaded. Check the connection, then reload the page.";
    CRASHED_OLD = "This browser is too old for its program. A current Chrome, Edge, Firefox or Safari runs it.";

    DEVICE = "This device and browser";
    TEST_GPU = "Test the GPU";
    TESTING_GPU = "The GPU computes something that the processor has computed too …";
    TEST_UNANSWERED = "The GPU has not answered for two minutes. Closing other tabs, or starting the browser again, may help.";
    COPY_REPORT = "Copy report";
    COPIED = "The report is copied. Paste it where you tell about the problem.";
    COPY_BY_HAND = "The browser does not let this page copy. Copy the marked text with Ctrl + C, or by touching it for a while.";
    REPORT = "Report";
    INVITE = "Let another device in";
    INVITATION = "Scan this with the other device's camera, or open the address there. It works once, for ten minutes.";
    INVITATION_PICTURE = "QR code of the address below";
    REPORT_HINT = "The report holds what stands here and the last errors; no sentence and no picture.";

    PROMPT_LABEL = "Your sentence. Type words and put pictures between them.";
    PROMPT_HINT = "Words and pictures …";
    CREATURES = "Creatures";
    CREATURES_HINT = "click one, or drag it in";
    ADD_PICTURE = "Your own picture";
    ADD_PICTURE_HINT = "or drop one anywhere, or paste it";
    EXAMPLES = "Try";

    UNDO = "Undo";
    UNDO_KEYS = "Undo (Ctrl + Z)";
    REDO = "Redo";
    REDO_KEYS = "Redo (Ctrl + Shift + Z)";
    UNDONE = "Undone.";
    REDONE = "Redone.";
    PICTURE_ELSEWHERE = "That picture lies on another page, from which this one may fetch nothing. Copy the picture itself and paste it here, or save it and drop the file.";
    CHIP_CHANGE = "Change";
    CHIP_REMOVE = "Take out";
    DRAW_ONE = "Draw one";
    DRAWING = "my drawing";

    RETOUCH = "Change the picture";
    RETOUCH_NAME = "Name";
    RETOUCH_TABS = "What to change";
    RETOUCH_FRAME = "Frame";
    RETOUCH_CUT = "Cut out";
    RETOUCH_DRAW = "Draw";
    RETOUCH_ZOOM = "Zoom";
    RETOUCH_FRAME_HINT = "The model sees this square. Drag the picture with a finger, pen or mouse; two fingers zoom. On a keyboard the arrows move it; + and - zoom.";
    RETOUCH_CUT_HINT = "What is left when the background goes is what the model looks at.";
    RETOUCH_DRAW_HINT = "Draw with finger, pen or mouse. On a keyboard the arrows move the brush; the space bar puts it down and lifts it.";
    RETOUCH_VIEW = "The picture, as the model sees it";
    RETOUCH_MIRROR = "Mirror";
    RETOUCH_WHOLE = "Whole picture";
    RETOUCH_MIDDLE = "Middle";
    RETOUCH_FILE = "Another file …";
    RETOUCH_CUT_NOW = "Take the background away";
    RETOUCH_TOLERANCE = "How much goes";
    RETOUCH_EDGE = "Soft edge";
    RETOUCH_HOLES = "Also in the holes";
    RETOUCH_TOOL = "Tool";
    RETOUCH_BRUSH = "Brush";
    RETOUCH_ERASER = "Eraser";
    RETOUCH_FILL = "Fill";
    RETOUCH_SIZE = "Size of the brush";
    RETOUCH_FINE = "Fine";
    RETOUCH_MEDIUM = "Medium";
    RETOUCH_BROAD = "Broad";
    RETOUCH_HUGE = "Very broad";
    RETOUCH_COLOUR = "Colour";
    RETOUCH_CLEAR = "Clear all";
    RETOUCH_DONE = "Done";
    RETOUCH_CANCEL = "Cancel";
    RETOUCH_DISCARD = "Close without keeping what you have changed?";
    RETOUCH_NOTHING_LEFT = "Nothing would be left of the picture. Let less go.";
    RETOUCH_NOTHING_GOES = "The border of this picture is the thing itself, so nothing goes. Let more go, or frame the picture wider.";
    RETOUCH_UNREADABLE = "The picture cannot be opened here.";
    RETOUCH_NO_MEMORY = "This browser has no memory left for the picture. Close other tabs, then try again.";

    GENERATE = "Make the picture";
    GENERATE_KEYS = "Ctrl + Enter";
    CANCEL = "Cancel";
    SEED = "Seed";
    DICE = "Another seed";
    LOCK = "Keep the seed";
    MORE = "More settings";
    STEPS = "Steps";
    GUIDANCE = "Guidance";
    SAMPLER = "Sampler";
    NEGATIVE = "Not in the picture";
    NEGATIVE_HINT = "words to steer away from";

    WHERE = "Where";
    WHERE_AUTO = "Automatic";
    WHERE_GPU = "This device, GPU";
    WHERE_CPU = "This device, CPU";
    WHERE_SERVER = "Server";

    MODEL = "Model";
    MODEL_PROGRESS = "How much of the model is here";
    BUILT_IN = "The built-in one";
    BUILT_IN_DETAIL = "small, comes with the page";
    OFFERED = "on the server";
    USE = "Use";
    IN_USE = "in use";
    FETCH_REST = "Fetch the part that draws too";
    GO_ON_FETCHING = "Go on fetching";
    CHOOSE_AGAIN = "Choose its folder again";
    CHECK = "Check";
    REMOVE = "Remove";
    PAUSE = "Pause";
    STOP = "Stop";
    MODEL_ADDRESS = "From an address";
    MODEL_ADDRESS_HINT = "https://…/models/kosmos-g/";
    MODEL_ONLY_ENCODER = "Only the part that reads the sentence; my server draws";
    MODEL_FETCH = "Fetch";
    MODEL_FOLDER = "From a folder of this device";
    NO_ADDRESS = "That is no address. It is the folder that holds the model's bundle.json, and begins with https://.";

    RESULT = "The picture";
    EMPTY_STAGE = "Your picture appears here.";
    SAVE = "Save";
    SAVE_HINT = "A PNG file with the recipe inside";
    USE_AGAIN = "Use as a word";

    COUNT = "Pictures";
    GENERATE_NEXT = "Put it in line";
    QUEUE = "In line";
    CANCEL_ALL = "Cancel all";
    WITHDRAW = "Remove";
    LEAVE_OUT = "Leave it out";
    QUEUE_IS_FULL = "20 wait already. Let some of them be made first.";
    RESULTS = "Pictures of this visit";
    LIVE = "The one that is being made";
    SAME_SEED = "Same seed";
    SAME_SEED_HINT = "The present sentence with the seed of this picture";
    COMPARE = "Compare";
    COMPARE_END = "One picture again";
    COMPARE_SLIDER = "How much of each picture is seen";
    COMPARE_HINT = "Choose another picture below to compare with.";
    GRID = "Grid";
    GRID_ACROSS = "Across";
    GRID_DOWN = "Down";
    GRID_NOTHING = "nothing";
    GRID_VALUES_ACROSS = "Values across";
    GRID_VALUES_DOWN = "Values down";
    GRID_MAKE = "Make the grid";
    GRID_SAVE = "Save the grid";
    GRID_SAVE_HINT = "A PNG file of all its pictures with their labels";
    GRID_OF_ONE = "Across and down are the same. Choose two different ones.";
    WHERE_CHANGE = "Change";
    WHERE_WHY = "Why are some greyed out?";
    PREPARING_GPU = "Preparing the GPU's programs …";
    STARTING_PROGRAM = "Fetching the program that computes …";
    ENCODING_FIRST = "Reading your sentence. The first time, the GPU's programs are prepared, which takes longer …";
    STEPPING_FIRST = "The first step, for which the GPU's programs are prepared. The next ones are faster …";
    ADDRESS_IS_INSECURE = "at an address that begins with http://, browsers keep WebGPU from a page";

    STARTING = "Getting ready …";
    READY = "Ready.";
    WAITING_FOR_MODEL = "The model is still loading …";
    ENCODING = "Reading your sentence …";
    DECODING = "Turning it into pixels …";
    SENDING = "Sending to the server …";
    FETCHING = "Fetching the picture …";
    CANCELLED = "Cancelled. Your sentence is as it was.";
    NOTHING_TO_MAKE = "Write something first, or click a creature.";

    EVERYTHING = "Everything";
    YOU_CHOSE_THE_PROCESSOR = "you chose the processor";
    NO_WEBGPU = "this browser offers no WebGPU";
    NO_GPU_FOUND = "this browser finds no GPU for WebGPU";
    GPU_IS_EMULATED = "WebGPU is only emulated here, which is slower";
    GPU_FAILED_TO_START = "the GPU could not be started";

    NO_GPU = "This browser offers no WebGPU. A current Chrome, Edge, Firefox or Safari does, on most devices.";
    NO_SERVER = "This page came without a server, or cannot reach it. Start kosmosg-server and open its page; one that was only away is found when you come back to this page.";
    SERVER_UNREACHABLE = "the server cannot be reached";
    SERVER_SILENT = "the server can be reached, but does not answer; it may be overloaded or stuck";
    SERVER_AWAY = "The server is away. Waiting for it to come back …";
    SERVER_GONE = "The server has not come back for half a minute. It keeps your picture and goes on with it when it runs again: continue there then, or on this device now. Your sentence and the steps so far are kept.";
    JOB_FORGOTTEN = "The server has forgotten this picture: it was started again without its jobs, or too much time has passed. Your sentence and the steps so far are kept.";
    NOT_PAIRED = "The server does not know this device, and works only for those that it knows.";
    PAIRING = "This server wants to know your device first. As long as it knows nobody, its window shows a link and a QR code when it starts: open the link on this device, or scan the code with it. Otherwise ask its administrator for a link.";
    PAIR = "Enter a code";
    NO_STORAGE = "This browser keeps no files for this page. Private windows often do not; open the page in an ordinary one.";
    MODEL_NOT_LOADED = "The page ended while it was loading the model that you used last, or another tab is loading it. The built-in one takes its place. You can choose it again here; if the page ends again, this device cannot carry it.";
    MODEL_NOT_KEPT = "The model that you used last is not in this browser any more. The built-in one takes its place.";
    OTHER_TAB = "Another tab of this page is at work on this model. Let it finish there, or close that tab.";
    MODEL_GONE = "A file of the model is not there any more. The browser may have removed it to get room; fetch it again.";
    LINE_BROKE = "The connection broke.";
    LINE_SILENT = "Nothing has come over the connection for half a minute.";
    DEVICE_STOPPED = "This device stopped in the middle. Your sentence and the steps so far are kept.";
    WORKER_STOPPED = "The part of the page that computes has stopped.";
    WORKER_NOT_LOADED = "The part of the page that computes could not be loaded. Check the connection; if there is a newer version of this page, reload it.";
    GO_ON_SERVER = "Continue on the server";
    GO_ON_GPU = "Continue on the GPU";
    GO_ON_CPU = "Continue on this device";
    TRY_AGAIN = "Try again";

    GALLERY = "Your pictures";
    IN_GALLERY = "with your pictures";
    GALLERY_EMPTY = "What you make is kept here, in this browser and nowhere else.";
    GALLERY_SEARCH = "Search your pictures";
    GALLERY_SEARCH_HINT = "Search by words";
    GALLERY_NOTHING_FOUND = "No picture matches.";
    FAVOURITES = "Favourites";
    FAVOURITE = "Favourite";
    SELECT = "Select";
    SELECT_END = "End selection";
    EXPORT = "Export all";
    EXPORT_HINT = "A zip file of PNG files with their recipes";
    IMPORT = "Import";
    IMPORT_HINT = "A zip file that was exported here, or single PNG files";
    DELETE = "Delete";
    CLOSE = "Close";
    PREVIOUS = "Previous picture";
    NEXT = "Next picture";
    USE_PROMPT = "Use this prompt again";
    COPY_LINK = "Copy link";
    COPY_LINK_HINT = "A link with the recipe in it";
    LINK_COPIED = "Copied. The link brings the sentence, the settings and all its pictures.";
    LINK_HERE = "Here is the link:";
    RESTORE = "Restore";
    RESTORED = "The sentence, its pictures and the settings are as they were.";
    MADE = "Made";
    TAKES = "Size";
    NOT_KEPT = "This browser keeps no pictures and no unfinished work for this page: it is a private window, or there is no room. Save the pictures that you like.";
    PICTURE_GONE = "The browser has not kept this picture's file.";
    NOTHING_TO_EXPORT = "There is no picture to export.";
    EXPORT_TOO_LARGE = "So many pictures do not fit into one zip file. Select fewer of them.";
    EXPORTING = "Putting the pictures together …";
    IMPORTING = "Reading the pictures …";

    PICTURES_TOO_LARGE = "The pictures of a sentence may have 64 MB together. Make one of them smaller, or take one out.";
    RECIPE_TOO_MUCH = "It asks for more than this page does, and was left alone.";
    RECIPE_DAMAGED = "The recipe in this picture is damaged or of another version. The picture itself can be used.";
    LINK_OPENED = "The sentence and the settings are those of a link now. Undo brings your sentence back.";
    LINK_DAMAGED = "The link is damaged or incomplete. Ask for it again, best as a file or without line breaks.";
    LINK_TOO_LONG = "This recipe is too long for a link. Save the picture and pass the file on: the recipe is in it.";
    OTHER_ADAPTERS = "It was made with additions to the model that this page does not have, and will look different.";
    MISSING_PICTURES = "A picture is still missing in the sentence. Click its place, and drop, paste or choose a picture; or delete the place.";
    JOB_OF_OTHER_MODEL = "The picture that was being made belongs to another model. Your sentence is kept; make the picture again, or choose that model first.";
    JOB_LEFT = "This picture was being made when the page ended. The sentence and the steps so far are kept.";
}

/// A sentence to start from: words, with a creature wherever there is a `*`.
pub const EXAMPLE_SENTENCES: &[&str] = &[
    "a * on the beach",
    "a * and a * in the forest",
    "a * with a crown in the city",
    "a red * in the snow",
    "a pencil sketch of a * on the moon",
];

/// The colours to draw with, and their names.
pub const COLOURS: &[(&str, [u8; 3])] = &[
    ("black", [34, 30, 32]),
    ("grey", [139, 134, 130]),
    ("white", [255, 255, 255]),
    ("brown", [122, 74, 44]),
    ("red", [212, 48, 42]),
    ("orange", [242, 132, 38]),
    ("yellow", [250, 208, 56]),
    ("light green", [140, 198, 62]),
    ("green", [38, 134, 78]),
    ("turquoise", [42, 176, 172]),
    ("light blue", [112, 186, 236]),
    ("blue", [44, 92, 190]),
    ("purple", [126, 72, 168]),
    ("pink", [240, 138, 176]),
    ("skin", [248, 212, 178]),
    ("dark brown", [78, 50, 36]),
];

/// A message of the program's depths as a sentence.
pub fn sentence(message: &str) -> String {
    let end = if message.ends_with(['.', '!', '?', ')', '…']) { "" } else { "." };
    sentence_start(message) + end
}

/// Words with a capital letter, as a sentence begins; a file's name stays as it is.
pub fn sentence_start(words: &str) -> String {
    let first = words.split_whitespace().next().unwrap_or_default();
    if first.trim_end_matches(['.', ':', ',']).contains('.') {
        return words.to_owned();
    }
    let mut letters = words.chars();
    let first = letters.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string());
    first + letters.as_str()
}

/// What a picture shows, for those who do not see it: the sentence that it was made of.
pub fn result_label(sentence: &str) -> String {
    format!("{RESULT}: {sentence}")
}

/// Loading of the model.
pub fn loading(bytes: u64, of: u64) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    format!("Loading the model: {:.1} of {:.1} MB", megabytes(bytes), megabytes(of))
}

/// A job that could not be given to the server.
pub fn not_sent(why: &str) -> String {
    format!("{} Your sentence and the steps so far are kept.", sentence(why))
}

/// A file that is missing among those that the person chose.
pub fn not_chosen(name: &str) -> String {
    format!("{name} is not among the files. Choose the folder that holds all files of the model.")
}

/// An address from which nothing comes.
pub fn unreachable(address: &str) -> String {
    format!(
        "Nothing comes from {address}. There is no connection, or its server does not let this page fetch it (kosmosg-server does with --allow-origin)."
    )
}

/// A file that should say what a model is.
pub fn no_model(name: &str) -> String {
    format!("{name} does not describe a model.")
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// What of a kept model is here.
pub fn kept(bytes: u64, of: u64, is_whole: bool, is_encoder: bool) -> String {
    let what = if is_encoder { ", only the part that reads" } else { "" };
    match is_whole {
        true => format!("{} in this browser{what}", size(of)),
        false => format!("{} of {} in this browser{what}", size(bytes), size(of)),
    }
}

/// Fetching a whole model.
pub fn fetch_all(bytes: u64) -> String {
    format!("Fetch ({})", size(bytes))
}

/// Fetching its encoder.
pub fn fetch_encoder(bytes: u64) -> String {
    format!("Only the part that reads ({})", size(bytes))
}

/// What came of a check of a kept model.
pub fn checked(right: usize, of: usize, wrong: &[String]) -> String {
    match wrong {
        [] if right == of => format!("All {of} files are right."),
        [] => format!("{right} of {of} files are here and right."),
        wrong => format!("Damaged, and to be fetched again: {}.", wrong.join(", ")),
    }
}

/// A model that does not come.
pub fn stalled(name: &str, bytes: u64, of: u64) -> String {
    format!("{name}: {} of {} · no data is coming, trying again …", size(bytes), size(of))
}

/// A model on its way.
pub fn installing(name: &str, bytes: u64, of: u64, speed: Option<f64>, seconds_left: Option<f64>) -> String {
    let speed = speed.map_or(String::new(), |speed| format!(" · {}/s", size(speed as u64)));
    let left = seconds_left.map_or(String::new(), |seconds| format!(" · {} left", duration(seconds)));
    format!("{name}: {} of {}{speed}{left}", size(bytes), size(of))
}

/// The room there is for models.
pub fn room(used: u64, most: u64) -> String {
    format!("This browser keeps {} for this page, and would keep up to {}.", size(used), size(most))
}

/// Asks whether a model is to be removed.
pub fn remove_model(name: &str) -> String {
    format!("Remove {name} from this browser?")
}

/// Progress of a run.
pub fn step(step: usize, of: usize, seconds_left: Option<f64>) -> String {
    let left = seconds_left.map_or(String::new(), |seconds| format!(" · {} left", duration(seconds)));
    format!("Step {step} of {of}{left}")
}

/// What it says of a picture that is one of several.
pub fn of_series(number: usize, of: usize, doing: &str) -> String {
    format!("Picture {number} of {of} · {doing}")
}

/// Several finished pictures.
pub fn all_done(pictures: usize, seconds: f64, place: &str) -> String {
    format!("{pictures} pictures made in {} {place}.", duration(seconds))
}

/// The button that makes pictures.
pub fn generate(pictures: u64) -> String {
    if pictures == 1 { GENERATE.into() } else { format!("Make {pictures} pictures") }
}

/// Orders in line, for those who do not see them.
pub fn in_line(orders: usize) -> String {
    match orders {
        0 => String::new(),
        1 => "One waits in line.".into(),
        n => format!("{n} wait in line."),
    }
}

/// An order in line: its sentence, and how many pictures it makes.
pub fn waiting(sentence: &str, pictures: usize) -> String {
    if pictures == 1 { sentence.to_owned() } else { format!("{sentence} · {pictures} pictures") }
}

/// The button that takes an order out of the line.
pub fn withdraw_label(sentence: &str) -> String {
    format!("{WITHDRAW}: {sentence}")
}

/// An order that could not be made, while others waited.
pub fn left_out(sentence: &str, why: &str) -> String {
    format!("“{sentence}” was left out. {}", self::sentence(why))
}

/// What two pictures are that are compared.
pub fn compared(left: &str, right: &str) -> String {
    format!("Left: {left}. Right: {right}.")
}

/// One of them: where it stands in a grid, and its sentence.
pub fn compared_picture(number: u64, place: Option<&str>, sentence: Option<&str>) -> String {
    let place = place.map_or(String::new(), |place| format!(" ({place})"));
    let sentence = sentence.map_or(String::new(), |sentence| format!(", {sentence}"));
    format!("picture {number}{place}{sentence}")
}

/// How much of the model's room for text a sentence takes.
pub fn reading(tokens: usize, longest: usize) -> String {
    format!("{tokens} of {longest} tokens")
}

/// A sentence that the model cannot read.
pub fn too_long(tokens: usize, longest: usize) -> String {
    match tokens {
        ..100_000 => {
            format!("Too long: {tokens} tokens, and the model can read {longest}. Take out words or pictures.")
        }
        _ => format!("Far too long: the model can read {longest} tokens. Take out words or pictures."),
    }
}

/// Words that the model leaves out.
pub fn unknown_words(words: &[String]) -> String {
    let short = |word: &String| match word.char_indices().nth(MOST_LETTERS) {
        Some((at, _)) => format!("{}…", &word[..at]),
        None => word.clone(),
    };
    let quoted: Vec<_> = words.iter().take(MOST_UNKNOWN).map(|word| format!("“{}”", short(word))).collect();
    let more = if words.len() > MOST_UNKNOWN { " and others" } else { "" };
    format!("The model does not know {}{more}.", quoted.join(", "))
}

/// So many unknown words are named.
const MOST_UNKNOWN: usize = 6;
/// So many letters of each: what was pasted may be an address.
const MOST_LETTERS: usize = 30;

/// A value that a setting cannot have.
pub fn no_value(setting: &str, value: &str) -> String {
    format!("{setting} cannot be {value}.")
}

/// A setting without values.
pub fn no_values(setting: &str) -> String {
    format!("{setting} needs values, with commas between them.")
}

/// A grid that is too large.
pub fn grid_too_large(pictures: usize, most: usize) -> String {
    format!("That makes {pictures} pictures; {most} are the most. Take out values.")
}

/// A result among the others, for those who do not see it.
pub fn result_number(number: u64, description: &str) -> String {
    format!("{number}. {description}")
}

/// Why a place cannot be chosen.
pub fn place_refused(place: &str, why: &str) -> String {
    format!("{place}: {why}")
}

/// Place in the server's queue.
pub fn queued(position: usize, seconds: Option<f64>) -> String {
    let time = seconds.map_or(String::new(), |seconds| format!(", about {}", duration(seconds)));
    match position {
        0 => "The server begins …".into(),
        1 => format!("One picture comes first{time} …"),
        n => format!("{n} pictures come first{time} …"),
    }
}

/// Parts of the GPU's program that a check at the start found wrong.
pub fn wrong_kernels(names: &[String]) -> String {
    format!(
        "This device computes wrong numbers with {}; the page does without, which takes more memory.",
        names.join(" and ")
    )
}

/// A finished picture.
pub fn done(seconds: f64, place: &str) -> String {
    format!("Made in {} {place}.", duration(seconds))
}

/// A run that changed its place.
pub fn moved(step: usize, from: &str, why: Option<&str>, to: &str) -> String {
    let why = why.map_or(String::new(), |why| format!(" (it {why})"));
    format!("Stopped after step {step} {from}{why}, continued {to}.")
}

/// Name of a pasted or dropped picture that has none.
pub fn picture_number(number: usize) -> String {
    format!("picture {number}")
}

/// What a picture in the sentence is called for those who do not see it.
pub fn picture_label(name: &str) -> String {
    format!("picture: {name}")
}

/// A palette entry for those who do not see it.
pub fn add_label(description: &str) -> String {
    format!("Put into the sentence: {description}")
}

/// Pictures that were put into the sentence, for those who do not see it; `pictures` are now in it.
pub fn inserted(names: &[&str], pictures: usize) -> String {
    let is = if names.len() == 1 { "is" } else { "are" };
    let names = sentence_start(&names.join(", "));
    match pictures {
        1 => format!("{names} {is} in the sentence."),
        n => format!("{names} {is} in the sentence: it has {n} pictures."),
    }
}

/// Files that are no pictures.
pub fn not_a_picture(name: &str) -> String {
    format!("{name} is not a picture that can be read here. PNG, JPEG and WebP can.")
}

/// A picture file that is damaged.
pub fn damaged_picture(name: &str) -> String {
    format!("{name} is damaged: this browser can read no picture from it.")
}

/// A picture file that is larger than anything that is needed here.
pub fn too_large_a_picture(name: &str) -> String {
    format!("{name} is too large to be opened here. Make it smaller first.")
}

/// More pictures than a sentence takes.
pub fn too_many_pictures(most: usize) -> String {
    format!("A sentence takes {most} pictures at most. What is more was left out; take a picture out to make room.")
}

/// A picture in the sentence that is selected now, for those who do not see it.
pub fn selected(name: &str) -> String {
    format!("{} is selected. Enter changes it, Delete takes it out.", sentence_start(name))
}

/// What the sentence is after undo or redo, for those who do not see it.
pub fn travelled(what: &str, sentence: &str) -> String {
    format!("{what} The sentence is now: {sentence}")
}

/// Something that could not be fetched.
pub fn cannot_fetch(what: &str, why: &str) -> String {
    format!("{what} could not be fetched ({why}). Check the connection, then try again or reload the page.")
}

/// How much is kept.
pub fn gallery_size(pictures: usize, bytes: u64) -> String {
    match pictures {
        0 => String::new(),
        1 => format!("1 picture, {} in this browser", size(bytes)),
        n => format!("{n} pictures, {} in this browser", size(bytes)),
    }
}

/// How many pictures are found.
pub fn found(pictures: usize) -> String {
    match pictures {
        0 => GALLERY_NOTHING_FOUND.into(),
        1 => "1 picture matches.".into(),
        n => format!("{n} pictures match."),
    }
}

/// A kept picture, for those who do not see it.
pub fn tile_label(sentence: &str, is_favourite: bool) -> String {
    let sentence = if sentence.is_empty() { RESULT } else { sentence };
    if is_favourite { format!("{sentence} ({FAVOURITE})") } else { sentence.to_owned() }
}

/// Exporting some pictures.
pub fn export_some(pictures: usize) -> String {
    format!("Export {pictures}")
}

/// Deleting some pictures.
pub fn delete_some(pictures: usize) -> String {
    format!("Delete {pictures}")
}

/// Pictures that were deleted.
pub fn deleted(pictures: usize) -> String {
    match pictures {
        1 => "The picture is deleted.".into(),
        n => format!("{n} pictures are deleted."),
    }
}

/// Pictures that came from elsewhere, that were here already, and that carry no recipe.
pub fn imported(new: usize, known: usize, without: usize) -> String {
    let counted = |n: usize| if n == 1 { "1 picture".into() } else { format!("{n} pictures") };
    let mut text = match new {
        0 => "No new picture.".into(),
        n => format!("{} added.", counted(n)),
    };
    if known > 0 {
        text += &format!(" {} here already.", if known == 1 { "1 was".into() } else { format!("{known} were") });
    }
    if without > 0 {
        text += &format!(" {} without a recipe of this page left out.", counted(without));
    }
    text
}

/// A file that is no export.
pub fn not_imported(name: &str, why: &str) -> String {
    format!("{name} was not taken in: {}", sentence(why))
}

/// The name of an exported file; `number` pictures are in it.
pub fn export_name(date: &str, number: usize) -> String {
    format!("kosmos-{date}-{number}.zip")
}

/// A picture that was made.
pub fn made(when: &str, seconds: f64, place: &str) -> String {
    if place.is_empty() { when.to_owned() } else { format!("{when}, in {} {place}", duration(seconds)) }
}

/// A recipe that can be restored; `name` is what its picture is called, if that is known.
pub fn has_recipe(name: &str, sentence: &str) -> String {
    let picture =
        if name.is_empty() { "This picture".into() } else { format!("The picture “{}”", shortened(name)) };
    format!("{picture} brings its recipe: “{}”. Restore sentence, pictures and settings?", shortened(sentence))
}

/// A recipe of another model.
pub fn other_model(its: &str, this: &str) -> String {
    format!("It was made with {}, and {this} is in use: it will look different.", shortened(its))
}

/// A recipe of another size.
pub fn other_size(width: u32, height: u32) -> String {
    format!("It was {width} × {height} pixels large: with this page's size it will look different.")
}

/// Pictures that a restored recipe does not bring.
pub fn missing(pictures: usize) -> String {
    match pictures {
        1 => {
            "One picture did not come along. Click its place in the sentence, and drop, paste or choose another.".into()
        }
        n => format!(
            "{n} pictures did not come along. Click their places in the sentence, and drop, paste or choose others."
        ),
    }
}

/// What a picture is called that is not there.
pub fn missing_name(name: &str) -> String {
    const MISSING: &str = "missing: ";
    match name {
        "" => "missing picture".into(),
        _ if name.starts_with(MISSING) => name.to_owned(),
        _ => format!("{MISSING}{name}"),
    }
}

/// A link that leaves pictures out.
pub fn link_without(pictures: usize, shrunk: usize) -> String {
    let mut text = "Copied.".to_owned();
    match shrunk {
        0 => {}
        1 => text += " One picture travels in small, so that the result will be close to this one but not the same.",
        n => {
            text += &format!(
                " {n} pictures travel in small, so that the result will be close to this one but not the same."
            )
        }
    }
    match pictures {
        0 => {}
        1 => text += " One picture is too large for a link; whoever opens it is asked for another.",
        n => text += &format!(" {n} pictures are too large for a link; whoever opens it is asked for others."),
    }
    text + " The saved file brings everything."
}

/// Words with at most so many letters as a line holds.
fn shortened(words: &str) -> String {
    const MOST: usize = 120;
    match words.char_indices().nth(MOST) {
        Some((at, _)) => format!("{} …", &words[..at]),
        None => words.to_owned(),
    }
}

/// The name of a saved picture.
pub fn file_name(seed: u64) -> String {
    format!("kosmos-{seed}.png")
}

/// The same of a picture that is not the first of its seed.
pub fn picture_file_name(seed: u64, picture: u64) -> String {
    if picture == 0 { file_name(seed) } else { format!("kosmos-{seed}-{picture}.png") }
}

/// The end of "Made in 3 s …" and "continued …".
pub mod place {
    /// On this device's GPU.
    pub const GPU: &str = "on this device's GPU";
    /// On this device's processor.
    pub const CPU: &str = "on this device's processor";
    /// On the server.
    pub const SERVER: &str = "on the server";
}

/// What this device and browser can do.
#[allow(missing_docs, reason = "the constants are what they say")]
pub mod about {
    pub const GPU: &str = "GPU";
    pub const TEST: &str = "Test of the GPU";
    pub const PROCESSOR: &str = "Processor";
    pub const STORAGE: &str = "Storage";
    pub const OFFLINE: &str = "Without a network";
    pub const SERVER: &str = "Server";
    pub const MODEL: &str = "Model";
    pub const VERSION: &str = "Version of the page";
    pub const WINDOW: &str = "Window";
    pub const BROWSER: &str = "Browser";

    pub const GPU_SHORT: &str = "GPU";
    pub const EMULATED_SHORT: &str = "emulated GPU";
    pub const NO_GPU_SHORT: &str = "no GPU";
    pub const OFFLINE_SHORT: &str = "works offline";
    pub const SERVER_SHORT: &str = "server";

    pub const ASKING: &str = "The browser is being asked …";
    pub const FOUND: &str = "WebGPU on";
    pub const EMULATED: &str = "WebGPU, but emulated on the processor, by";
    pub const NOT_SECURE: &str = "Browsers give WebGPU, storage and work without a network only to pages whose address begins with https://, or that come from the device itself (http://localhost). This page's does not. kosmosg-server encrypts where others can reach it, unless it is told --tls off.";
    pub const NOT_IN_CHROMIUM: &str = "This browser offers no WebGPU. Update it; on Linux it may have to be allowed under chrome://flags/#enable-unsafe-webgpu, and on Android it needs version 12 or later.";
    pub const NOT_IN_FIREFOX: &str =
        "This Firefox offers no WebGPU. Update it; where even the newest has none, Chrome or Edge do.";
    pub const NOT_IN_SAFARI: &str = "This browser offers no WebGPU. Safari has WebGPU from version 26, which comes with iOS 26, iPadOS 26 and macOS 26.";
    pub const NO_ADAPTER: &str = "The browser knows WebGPU, but finds no GPU for it. Update browser and graphics driver, and allow graphics acceleration in the browser's settings.";
    pub const SEE_CHROME: &str = "chrome://gpu says more.";
    pub const SEE_FIREFOX: &str = "about:support says more.";

    pub const OFFLINE_READY: &str = "This page works.";
    pub const OFFLINE_COMING: &str = "This page is being kept for it.";
    pub const OFFLINE_FAILED: &str = "This page could not be kept for it: there is too little room, or the connection broke. It is tried again at the next visit.";
    pub const OFFLINE_NEVER: &str = "This browser keeps no page, as in a private window.";
    pub const OFFLINE_NOT_SECURE: &str =
        "Browsers keep only pages whose address begins with https://, or that come from the device itself.";
    pub const UNKNOWN_THREADS: &str = "threads unknown";
    pub const UNKNOWN_MEMORY: &str = "memory unknown";
    pub const PERSISTED: &str = "It has promised not to remove that by itself.";
    pub const NOT_PERSISTED: &str = "It may remove that when room is short.";
    pub const NO_SERVER: &str = "None: this page came without one, or it cannot be reached.";
    pub const ON_CPU: &str = "on the processor";
    pub const ON_GPU: &str = "on the GPU";
    pub const LOADING: &str = "being loaded";
    pub const READY: &str = "ready";

    /// An adapter and its limits: the largest buffer, and the largest that a computation can read.
    pub fn gpu(kind: &str, name: &str, [buffer, binding]: &[String; 2], has_f16: bool) -> String {
        let f16 = if has_f16 { "computes with 16 bits" } else { "computes with 32 bits only" };
        format!("{kind} {name}; buffers of up to {buffer}, of which {binding} at once; {f16}.")
    }

    /// Asking for an adapter failed.
    pub fn gpu_failed(why: &str) -> String {
        format!("The browser knows WebGPU, but could not start it ({why}). Starting the browser again may help.")
    }

    /// All kernels compute the same as the processor.
    pub fn right(kernels: usize) -> String {
        format!("All {kernels} kernels compute what the processor computes.")
    }

    /// The processor's threads.
    pub fn threads(count: f64) -> String {
        format!("{count} threads")
    }

    /// The device's memory, which browsers round.
    pub fn memory(bytes: f64) -> String {
        format!("about {:.0} GB of memory", bytes / 1e9)
    }

    /// A server.
    pub fn server(version: &str, engine: &str, device: &str, queued: usize, capacity: usize) -> String {
        format!("kosmosg-server {version}, {engine} on {device}; {queued} of {capacity} places in its queue are taken.")
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_unknown_words_are_named_by_their_beginning() {
        let said = |word: &str| unknown_words(&[word.to_owned()]);
        assert_eq!(said("flurb"), "The model does not know “flurb”.");
        assert_eq!(said(&"ж".repeat(30)), format!("The model does not know “{}”.", "ж".repeat(30)));
        assert_eq!(said(&"🐙".repeat(60)), format!("The model does not know “{}…”.", "🐙".repeat(30)));
    }

    #[test]
    fn one_picture_is_and_two_are_in_the_sentence() {
        assert_eq!(inserted(&["sky"], 1), "Sky is in the sentence.");
        assert_eq!(inserted(&["sky"], 2), "Sky is in the sentence: it has 2 pictures.");
        assert_eq!(inserted(&["sky", "sea"], 2), "Sky, sea are in the sentence: it has 2 pictures.");
    }
}
